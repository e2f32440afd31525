"""Records grouped into tables: one per protocol id. What cannot be compared is refused here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence.items import ItemStore
from mhc_bench.evidence.quantities import GOLD, SCORES, Quantity, task_quantities
from mhc_bench.evidence.record import RESULTS, Record, Task
from mhc_bench.evidence.reproduction import Reproduction
from mhc_bench.evidence.statistics import Difference, Spread, holm, paired_difference, spread
from mhc_bench.evidence.verdicts import Adjusted, Judgement, Outcome, judge, judge_task

BASELINE = "baseline"


@dataclass(frozen=True)
class Cell:
    """One quantity of one variant: over its seeds, and against the reference."""

    variant: str
    values: dict[int, float]
    spread: Spread
    difference: Difference | None
    """None for the reference itself, and where there is no reference or no better direction."""
    judgement: Judgement | None
    """None where `difference` is None."""
    adjusted: Adjusted | None = None
    """A task's p, corrected for all tasks of its family; None for a measure that stands alone."""

    @property
    def verdict(self) -> str:
        """The verdict in words; empty where nothing was compared."""
        return self.judgement.words if self.judgement else ""

    @property
    def outcome(self) -> Outcome | None:
        """What the verdict comes to; None where nothing was compared."""
        return self.judgement.outcome if self.judgement else None

    @property
    def seeds_needed(self) -> int | None:
        """Of what was not shown: seeds that would show a difference as large as the observed one."""
        return self.judgement.seeds_needed if self.judgement else None


@dataclass(frozen=True)
class Row:
    """A variant and its runs by seed, whatever became of them."""

    variant: str
    runs: dict[int, Record]

    @property
    def diverged(self) -> tuple[int, ...]:
        """Seeds whose run diverged."""
        return tuple(seed for seed, run in self.runs.items() if run.status == "diverged")

    @property
    def unfinished(self) -> tuple[int, ...]:
        """Seeds whose run failed, or trained and was not evaluated."""
        return tuple(seed for seed, run in self.runs.items() if run.status not in RESULTS)


@dataclass(frozen=True)
class Floor:
    """The baseline against itself: same seed, weights and tokens, every weight perturbed by a hair."""

    differences: Spread
    """A/A run minus baseline, over the seeds that have both."""
    largest: float
    """The largest of their absolute values."""


@dataclass(frozen=True)
class Arm:
    """One protocol: the rows of one table, the baseline first and then by name."""

    name: str
    protocol_id: str
    rows: tuple[Row, ...]
    repeats: tuple[Row, ...] = ()
    """A/A runs: the baseline again, perturbed. They are no rows, and no seeds of the baseline."""
    repeated: Row | None = None
    """The baseline's runs, which the A/A runs repeat; there even where no row is the baseline's."""
    items: ItemStore = field(default_factory=ItemStore)
    """What every item of the runs scored, where it is known."""
    reference: str = BASELINE
    """The variant that the others are compared with."""
    reproductions: Mapping[str, tuple[Reproduction, ...]] = field(default_factory=dict)
    """Digest of a record -> what others' repetitions of it gave."""
    left_out: frozenset[str] = frozenset()
    """Variants whose rows a comparison of others does without."""

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """All records of the table, by variant and seed; the A/A runs last."""
        return tuple(run for row in (*self.rows, *self.repeats) for run in row.runs.values())

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that any variant ran."""
        return tuple(sorted({seed for row in self.rows for seed in row.runs}))

    @property
    def missing(self) -> tuple[tuple[str, int], ...]:
        """Runs of these variants that a record says were started, and that have no record here."""
        there = {(row.variant, seed) for row in (*self.rows, *self.repeats) for seed in row.runs}
        started = {run for record in self.records if record.started for run in record.started.runs}
        return tuple(sorted(run for run in started - there if run[0] not in self.left_out))

    @property
    def baseline(self) -> Row | None:
        """The row that the others are compared with: the baseline's, unless another was chosen."""
        return next((row for row in self.rows if row.variant == self.reference), None)

    @property
    def track(self) -> str:
        """`fixed`: all variants have the protocol's own values; `tuned`: each variant's trials chose them."""
        return "tuned" if any(record.configuration.get("search") for record in self.records) else "fixed"

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Each downstream task of any run, described by the first run that has it."""
        found: dict[str, Task] = {}
        for record in self.records:
            for name, task in record.evaluation.tasks.items() if record.evaluation else ():
                found.setdefault(name, task)
        return dict(sorted(found.items()))

    @cached_property
    def cost_ids(self) -> tuple[str, ...]:
        """Kinds of hardware on which the rows' runs were computed."""
        return tuple(sorted({run.identity.cost_id for row in self.rows for run in row.runs.values()}))

    def against(self, variant: str, *others: str) -> Arm:
        """The same runs with another reference, and the rows of `others` alone."""
        rows = sorted(
            (row for row in self.rows if row.variant in (variant, *others)),
            key=lambda row: row.variant != variant,
        )
        left_out = frozenset(row.variant for row in self.rows if row not in rows)
        return replace(self, rows=tuple(rows), reference=variant, left_out=left_out)

    def cell(self, row: Row, quantity: Quantity) -> Cell:
        """A quantity of one variant over its seeds; computed once, by variant and the quantity's key."""
        place = row.variant, quantity.key
        if place not in self._cells:
            self._cells[place] = self._cell(row, quantity)
        return self._cells[place]

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Cell]:
        return {}

    @cached_property
    def _known(self) -> dict[tuple[str, str], dict[int, float]]:
        return {}

    def values(self, row: Row, quantity: Quantity) -> dict[int, float]:
        """A quantity of a variant by seed, where its runs have it; read once, as `cell`."""
        place = row.variant, quantity.key
        if place not in self._known:
            self._known[place] = row_values(row, quantity)
        return self._known[place]

    def _cell(self, row: Row, quantity: Quantity) -> Cell:
        values = self.values(row, quantity)
        difference = self.difference(row, quantity)
        adjusted = self._adjusted.get((row.variant, quantity.key)) if quantity.family else None
        judgement = None if difference is None else self._judge(row, quantity, difference, adjusted)
        return Cell(row.variant, values, spread(values), difference, judgement, adjusted)

    def difference(self, row: Row, quantity: Quantity) -> Difference | None:
        """A quantity of one variant against the reference, paired by seed."""
        base = self.baseline
        if base is None or row is base or quantity.higher_is_better is None:
            return None
        return paired_difference(
            self.values(row, quantity),
            self.values(base, quantity),
            higher_is_better=quantity.higher_is_better,
        )

    def floor(self, repeat: Row, quantity: Quantity) -> Floor | None:
        """How far the baseline is from itself; None where no seed has both runs."""
        once = row_values(self.repeated, quantity) if self.repeated else {}
        again = row_values(repeat, quantity)
        gaps = {seed: again[seed] - once[seed] for seed in again.keys() & once.keys()}
        return Floor(spread(gaps), max(map(abs, gaps.values()))) if gaps else None

    @cached_property
    def _adjusted(self) -> dict[tuple[str, str], Adjusted]:
        """Holm's correction by (variant, quantity's key): over the tasks, for each variant and family."""
        found = {}
        for row in self.rows:
            for family in (SCORES, GOLD):
                tested = {
                    quantity.key: difference.p
                    for quantity in task_quantities(self.tasks, family)
                    if (difference := self.difference(row, quantity)) and difference.p is not None
                }
                for key, p in holm(tested).items():
                    found[row.variant, key] = Adjusted(p, len(tested))
        return found

    def _judge(
        self, row: Row, quantity: Quantity, difference: Difference, adjusted: Adjusted | None
    ) -> Judgement:
        base = self.baseline
        assert base is not None
        # Comparing survivors alone would flatter a variant whose bad seeds diverged or failed.
        for each in (row, base):
            for what, lost in (("diverged", each.diverged), ("is unfinished", each.unfinished)):
                if lost:
                    words = f"{each.variant} {what} in {len(lost)} of {len(each.runs)} seeds"
                    return Judgement("no verdict", words)
        return judge_task(difference, adjusted) if quantity.family else judge(difference)


def row_values(row: Row, quantity: Quantity) -> dict[int, float]:
    """A quantity of a variant by seed, where its runs have it."""
    read = {seed: quantity.of(run) for seed, run in row.runs.items()}
    return {seed: float(value) for seed, value in read.items() if value is not None}


@dataclass(frozen=True)
class Board:
    """One suite: a table per arm."""

    suite: str
    arms: tuple[Arm, ...]

    @property
    def is_study(self) -> bool:
        """Whether there are several protocols."""
        return len(self.arms) > 1

    @property
    def variants(self) -> tuple[str, ...]:
        """All variants of all arms, the baseline first."""
        names = {row.variant for arm in self.arms for row in arm.rows}
        return tuple(sorted(names, key=_baseline_first))


def _baseline_first(variant: str) -> tuple[bool, str]:
    return variant != BASELINE, variant


def collate(
    records: Sequence[Record], items: ItemStore | None = None, reproductions: Iterable[Reproduction] = ()
) -> Board:
    """The board of one suite, with the reproductions of its records.

    Args:
        items: where the runs' per-item outcomes lie, where that is known.

    Raises:
        UsageError: for records of different suites, or of two protocols under one arm.
        RunError: for records that contradict each other: twice the same run, a variant with two sets of
            options, or runs that are no pair because weights, tokens or data differ.
    """
    suites = sorted({record.identity.suite for record in records})
    if len(suites) != 1:
        raise UsageError(
            f"records of several suites cannot share a table: {', '.join(suites) or 'none given'}; "
            "--suite names one"
        )
    by_arm: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_arm[record.identity.arm].append(record)
    told: dict[str, tuple[Reproduction, ...]] = {}
    for each in reproductions:
        told[each.record] = (*told.get(each.record, ()), each)
    store = items or ItemStore()
    return Board(
        suites[0],
        tuple(replace(_arm(name, by_arm[name]), items=store, reproductions=told) for name in sorted(by_arm)),
    )


def _arm(name: str, records: list[Record]) -> Arm:
    ids = sorted({record.identity.protocol_id for record in records})
    label = f"{records[0].identity.suite}{f', arm {name}' if name else ''}"
    if len(ids) > 1:
        raise UsageError(f"{label}: a table cannot mix protocol ids: {' and '.join(ids)}")
    rows: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.identity.seed):
        variant, seed = record.identity.variant, record.identity.seed
        if seed in rows[variant]:
            raise RunError(f"{label}: two records of {variant} seed {seed}: expected one")
        rows[variant][seed] = record
    _refuse_contradictions(label, records)
    ordered = [Row(variant, rows[variant]) for variant in sorted(rows, key=_baseline_first)]
    repeats = tuple(row for row in ordered if is_repeat(row))
    shown = tuple(row for row in ordered if not is_repeat(row))
    repeated = next((row for row in shown if row.variant == BASELINE), None)
    return Arm(name, ids[0], shown, repeats, repeated)


def is_repeat(row: Row) -> bool:
    """Whether these are A/A runs."""
    return any(record.identity.perturbation for record in row.runs.values())


def _refuse_contradictions(label: str, records: list[Record]) -> None:
    _refuse_unequal(
        label,
        "options",
        records,
        lambda record: record.identity.variant,
        _connection_text,
    )
    trained = [record for record in records if record.training and record.digests]
    _refuse_unequal(label, "data", trained, lambda record: "all runs", _data_text)
    _refuse_unequal(label, "shared-weight digest", trained, _seed_text, _shared_weights)
    # A run that diverged saw fewer tokens, so its stream's digest is of a shorter stream.
    _refuse_unequal(label, "token-stream digest", trained, _seed_and_tokens, _token_stream)


def _connection_text(record: Record) -> str:
    identity = record.identity
    moved = f", start moved by {identity.perturbation}" if identity.perturbation else ""
    return f"{identity.connection} {dict(sorted(identity.options.items()))}{moved}"


def _data_text(record: Record) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(record.data.items()))


def _seed_text(record: Record) -> str:
    return f"seed {record.identity.seed}"


def _seed_and_tokens(record: Record) -> str:
    return f"seed {record.identity.seed}, {record.training.tokens if record.training else 0} tokens"


def _shared_weights(record: Record) -> str:
    return record.digests.shared_weights if record.digests else ""


def _token_stream(record: Record) -> str:
    return record.digests.token_stream if record.digests else ""


def _refuse_unequal(
    label: str,
    what: str,
    records: Iterable[Record],
    group: Callable[[Record], str],
    content: Callable[[Record], str],
) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for record in records:
        run, value = f"{record.identity.variant} seed {record.identity.seed}", content(record)
        first_run, first = seen.setdefault(group(record), (run, value))
        if first != value:
            raise RunError(f"{label}: {what} differs, no pair: {first_run} has {first}, {run} has {value}")

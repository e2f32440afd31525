"""Records grouped into tables: one per protocol id. What cannot be compared is refused here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.record import RESULTS, Record, Task
from mhc_bench.evidence.reproduction import Reproduction
from mhc_bench.evidence.statistics import Difference, Spread, paired_difference, spread

BASELINE = "baseline"


@dataclass(frozen=True)
class Cell:
    """One quantity of one variant: over its seeds, and against the baseline."""

    variant: str
    values: dict[int, float]
    spread: Spread
    difference: Difference | None
    """None for the baseline itself, and where there is no baseline or no better direction."""
    verdict: str


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
class Arm:
    """One protocol: the rows of one table, the baseline first and then by name."""

    name: str
    protocol_id: str
    rows: tuple[Row, ...]
    reproductions: Mapping[str, tuple[Reproduction, ...]] = field(default_factory=dict)
    """Digest of a record -> what others' repetitions of it gave."""

    @property
    def records(self) -> tuple[Record, ...]:
        """All records of the table, by variant and seed."""
        return tuple(run for row in self.rows for run in row.runs.values())

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that any variant ran."""
        return tuple(sorted({seed for row in self.rows for seed in row.runs}))

    @property
    def missing(self) -> tuple[tuple[str, int], ...]:
        """Runs that a record says were started, and that have no record here."""
        there = {(row.variant, seed) for row in self.rows for seed in row.runs}
        started = {run for record in self.records if record.started for run in record.started.runs}
        return tuple(sorted(started - there))

    @property
    def baseline(self) -> Row | None:
        """The baseline's row."""
        return next((row for row in self.rows if row.variant == BASELINE), None)

    @property
    def tasks(self) -> dict[str, Task]:
        """Each downstream task of any run, described by the first run that has it."""
        found: dict[str, Task] = {}
        for record in self.records:
            for name, task in record.evaluation.tasks.items() if record.evaluation else ():
                found.setdefault(name, task)
        return dict(sorted(found.items()))

    @property
    def cost_ids(self) -> tuple[str, ...]:
        """Kinds of hardware on which the runs were computed."""
        return tuple(sorted({record.identity.cost_id for record in self.records}))

    def cell(self, row: Row, quantity: Quantity) -> Cell:
        """A quantity of one variant over its seeds."""
        values = _values(row, quantity)
        difference = self._difference(row, values, quantity)
        return Cell(row.variant, values, spread(values), difference, self._verdict(row, difference))

    def _difference(self, row: Row, values: dict[int, float], quantity: Quantity) -> Difference | None:
        base = self.baseline
        if base is None or row is base or quantity.higher_is_better is None:
            return None
        return paired_difference(values, _values(base, quantity), higher_is_better=quantity.higher_is_better)

    def _verdict(self, row: Row, difference: Difference | None) -> str:
        base = self.baseline
        if difference is None or base is None:
            return ""
        # Comparing survivors alone would flatter a variant whose bad seeds diverged or failed.
        for each in (row, base):
            for what, lost in (("diverged", each.diverged), ("is unfinished", each.unfinished)):
                if lost:
                    return f"{each.variant} {what} in {len(lost)} of {len(each.runs)} seeds"
        return difference.verdict


def _values(row: Row, quantity: Quantity) -> dict[int, float]:
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


def collate(records: Sequence[Record], reproductions: Iterable[Reproduction] = ()) -> Board:
    """The board of one suite, with the reproductions of its records.

    Raises:
        UsageError: for records of different suites, or of two protocols under one arm.
        RunError: for records that contradict each other: twice the same run, a variant with two sets of
            options, or runs that are no pair because weights, tokens or data differ.
    """
    suites = sorted({record.identity.suite for record in records})
    if len(suites) != 1:
        raise UsageError(
            f"records of several suites cannot share a table: {', '.join(suites) or 'none given'}"
        )
    by_arm: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_arm[record.identity.arm].append(record)
    told: dict[str, tuple[Reproduction, ...]] = {}
    for each in reproductions:
        told[each.record] = (*told.get(each.record, ()), each)
    return Board(suites[0], tuple(_arm(name, by_arm[name], told) for name in sorted(by_arm)))


def _arm(name: str, records: list[Record], told: Mapping[str, tuple[Reproduction, ...]]) -> Arm:
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
    ordered = tuple(Row(name, rows[name]) for name in sorted(rows, key=_baseline_first))
    return Arm(name, ids[0], ordered, told)


def _refuse_contradictions(label: str, records: list[Record]) -> None:
    _refuse_unequal(
        label,
        "options",
        records,
        lambda record: record.identity.variant,
        lambda record: f"{record.identity.connection} {dict(sorted(record.identity.options.items()))}",
    )
    trained = [record for record in records if record.training and record.digests]
    _refuse_unequal(label, "data", trained, lambda record: "all runs", _data_text)
    _refuse_unequal(label, "shared-weight digest", trained, _seed_text, _shared_weights)
    # A run that diverged saw fewer tokens, so its stream's digest is of a shorter stream.
    _refuse_unequal(label, "token-stream digest", trained, _seed_and_tokens, _token_stream)


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

"""The tables of a leaderboard, as text cells; how a format draws them is its own matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.choice import chosen, mean_losses
from mhc_bench.evidence.collate import Arm, Board, Cell, Row
from mhc_bench.evidence.facts import differing_fields
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.record import RESULTS, Record, Task
from mhc_bench.evidence.reproduction import Reproduction
from mhc_bench.evidence.text import (
    NO_VALUE,
    difference_text,
    interval,
    listed,
    mean_and_sd,
    probability,
    shown,
    signed,
    value_range,
    with_unit,
)
from mhc_bench.evidence.verdicts import FEWEST_SEEDS_FOR_TASKS

WORDS = frozenset(
    {
        "Arm",
        "Protocol id",
        "Measure",
        "Variant",
        "Task",
        "Metric",
        "Status",
        "Verdict",
        "Record SHA-256",
        "Equal",
        "Rests on",
        "Case",
        "Remark",
        "Claim",
        "Paper",
        "Source",
        "Ours",
        "Reproduced by",
    }
)


TASKS_CAPTION = (
    'Intervals are for one task each, over seeds, on these items. "p, Holm" is corrected for looking at all '
    f"tasks of a variant; it alone decides, and only from {FEWEST_SEEDS_FOR_TASKS} seeds on: with fewer the "
    "interval stands alone. Families are learned in jumps, so a few seeds show little."
)


@dataclass(frozen=True)
class Table:
    """A table of text. The columns headed by one of `WORDS` hold words; the others are aligned as numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def headline_quantities(arm: Arm) -> list[Quantity]:
    """Validation loss, bits per byte where recorded, and the gold answers' log-likelihood."""
    gold = averaged_tasks(arm, q.GOLD)
    found = [q.VALIDATION_LOSS, q.BITS_PER_BYTE, *([q.gold_quantity(gold)] if gold else [])]
    return [quantity for quantity in found if quantity is q.VALIDATION_LOSS or _anyone_has(arm, quantity)]


def averaged_tasks(arm: Arm, family: str) -> tuple[str, ...]:
    """The tasks over which a family's mean is taken: those with gold answers, or with fractions as scores."""
    if family == q.GOLD:
        return tuple(name for name in arm.tasks if _anyone_has(arm, q.task_gold_quantity(name)))
    return tuple(name for name, task in arm.tasks.items() if q.is_fraction(task))


def _anyone_has(arm: Arm, quantity: Quantity) -> bool:
    return any(quantity.of(record) is not None for record in arm.records)


def score_quantities(arm: Arm) -> list[Quantity]:
    """Each task's score, then the mean and the chance-centred mean over those whose scores are fractions."""
    each = q.task_quantities(arm.tasks, q.SCORES)
    return [*each, *mean_quantities(arm)]


def mean_quantities(arm: Arm) -> list[Quantity]:
    """The means over tasks whose scores are fractions; centred, over those with a known chance."""
    fractions = averaged_tasks(arm, q.SCORES)
    centred = tuple(name for name in fractions if arm.tasks[name].chance is not None)
    found = [q.score_quantity(fractions)] if len(fractions) > 1 else []
    return [*found, *([q.centred_quantity(centred)] if len(centred) > 1 else [])]


def comparison(title: str, arm: Arm, chosen: list[Quantity]) -> Table:
    """Each variant's mean and its paired difference to the baseline, one row per quantity and variant."""
    columns = ("Measure", "Variant", "Mean ± sd", "n", "Difference", "95 % interval", "Pairs", "Verdict")
    rows = [
        (with_unit(quantity), *_comparison_cells(arm.cell(row, quantity), quantity))
        for quantity in chosen
        for row in arm.rows
    ]
    return Table(title, columns, tuple(rows))


def _comparison_cells(cell: Cell, quantity: Quantity) -> tuple[str, ...]:
    start = (cell.variant, mean_and_sd(cell.spread, quantity), str(cell.spread.n))
    found = cell.difference
    if found is None:
        return (*start, NO_VALUE, NO_VALUE, NO_VALUE, NO_VALUE)
    mean = NO_VALUE if found.mean is None else signed(found.mean, quantity)
    return (*start, mean, interval(found, quantity), str(found.n), cell.verdict)


def scores(arm: Arm) -> Table:
    """All tasks at a glance: one row per variant, chance and prior above."""
    chosen = score_quantities(arm)

    def given(label: str, of: Callable[[Task], float | None]) -> tuple[str, ...]:
        return (label, *(_optional(_of_tasks(arm, one, of), one) for one in chosen))

    rows = [
        given("chance", lambda task: task.chance),
        given("prior", lambda task: task.prior),
        *(
            (row.variant, *(mean_and_sd(arm.cell(row, one).spread, one) for one in chosen))
            for row in arm.rows
        ),
    ]
    caption = "Scores in per cent, ± standard deviation over seeds. Prior: the best constant answer."
    return Table("Downstream scores", ("Variant", *(one.title for one in chosen)), tuple(rows), caption)


def _of_tasks(arm: Arm, quantity: Quantity, of: Callable[[Task], float | None]) -> float | None:
    """A property of the task that `quantity` scores; for the mean score its mean over the same tasks."""
    if quantity.key == q.CENTRED:
        return None
    tasks = [task for name, task in arm.tasks.items() if quantity.key == q.task_quantity(name, task).key]
    values = [of(task) for task in tasks or filter(q.is_fraction, arm.tasks.values())]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _optional(value: float | None, quantity: Quantity) -> str:
    return NO_VALUE if value is None else shown(value, quantity)


def task_properties(arm: Arm) -> Table:
    """What each task is, and how far its items alone leave its score uncertain."""
    columns = ("Task", "Metric", "Shots", "Items", "Version", "Chance", "Prior", "Item error")
    rows = [
        (
            name,
            task.metric,
            str(task.shots),
            str(task.n),
            task.version,
            *(
                _optional(value, q.task_quantity(name, task))
                for value in (task.chance, task.prior, _item_error(arm, name))
            ),
        )
        for name, task in arm.tasks.items()
    ]
    caption = (
        "Item error: standard error over the items of one run, mean over runs. All seeds answer the same "
        "items, so averaging over seeds does not reduce it; it is apart from the spread over seeds."
    )
    return Table("Tasks", columns, tuple(rows), caption)


def _item_error(arm: Arm, name: str) -> float | None:
    errors = [error for run in arm.records if (error := q.task_stderr(run, name)) is not None]
    return sum(errors) / len(errors) if errors else None


def task_comparison(arm: Arm) -> Table:
    """Every task's score against the baseline, and the gold answers' log-likelihood likewise."""
    gold = [one for one in q.task_quantities(arm.tasks, q.GOLD) if _anyone_has(arm, one)]
    plain = comparison("Task by task", arm, [*score_quantities(arm), *map(_named_gold, gold)])
    cells = [arm.cell(row, quantity) for quantity in [*score_quantities(arm), *gold] for row in arm.rows]
    corrected = [probability(cell.adjusted.p) if cell.adjusted else NO_VALUE for cell in cells]
    columns = (*plain.columns[:-1], "p, Holm", plain.columns[-1])
    rows = [(*row[:-1], p, row[-1]) for row, p in zip(plain.rows, corrected, strict=True)]
    return Table(plain.title, columns, tuple(rows), TASKS_CAPTION)


def _named_gold(quantity: Quantity) -> Quantity:
    return replace(quantity, title=f"{quantity.title}: gold log-likelihood")


def stability(arm: Arm) -> Table:
    """How the mechanism and the optimisation behaved: ranges over seeds, every run counted."""
    columns = ("Variant", "Runs", "Diverged", "Unfinished", *(one.title for one in q.STABILITY))
    rows = [
        (
            row.variant,
            str(len(row.runs)),
            str(len(row.diverged)),
            str(len(row.unfinished)),
            *(value_range(arm.cell(row, one).values.values(), len(row.runs)) for one in q.STABILITY),
        )
        for row in arm.rows
    ]
    caption = (
        "Smallest to largest over seeds. Gain: Amax of the product of all residual maps, mean over tokens; "
        "1 is an ordinary residual connection. Gradient norm: before clipping. A value that "
        "was not finite is left out of its range, which then says over how many runs it is."
    )
    return Table("Stability", columns, tuple(rows), caption)


def cost(arm: Arm) -> Table:
    """What each variant costs."""
    columns = ("Variant", *(with_unit(one) for one in q.COST))
    rows = [(row.variant, *(_cost_text(arm, row, one) for one in q.COST)) for row in arm.rows]
    caption = (
        "Step time and speed: training steps of the variant and of the baseline taken in turn in one "
        "process. Training and evaluation time: as the runs went, beside whatever else ran. Means over seeds."
    )
    return Table("Cost", columns, tuple(rows), caption)


def _cost_text(arm: Arm, row: Row, quantity: Quantity) -> str:
    if len(arm.cost_ids) > 1 and quantity not in (q.PARAMETERS, q.ADDED_PARAMETERS):
        return f"not comparable: {len(arm.cost_ids)} cost ids"
    mean = arm.cell(row, quantity).spread.mean
    return shown(mean, quantity)


def tuning(arm: Arm) -> Table:
    """Tuned track: what each variant's trials chose, and how they came out."""
    columns = (
        "Variant",
        "Learning rate",
        "Weight decay",
        "Trials",
        "Diverged trials",
        "Selection loss",
        "Highest",
    )
    rows = [(row.variant, *_tuning_cells(next(iter(row.runs.values())))) for row in arm.rows]
    caption = (
        "The same grid and number of trials for every variant. Selection loss: of the chosen point, on the "
        "selection split, mean over the trials' seeds. Highest: of the grid's worst point that has one."
    )
    return Table("Tuned values", columns, tuple(rows), caption)


def _tuning_cells(record: Record) -> tuple[str, ...]:
    trials = record.tuning.trials if record.tuning else ()
    if not trials:
        return (NO_VALUE,) * 6
    losses = mean_losses(trials)
    best = chosen(trials)
    finite = [loss for loss in losses.values() if math.isfinite(loss)]
    diverged = sum(trial.loss is None for trial in trials)
    ends = (_loss(losses[best] if math.isfinite(losses[best]) else None), _loss(max(finite, default=None)))
    return (f"{best[0]:g}", f"{best[1]:g}", str(len(trials)), str(diverged), *ends)


def runs(arm: Arm) -> Table:
    """Every run that was started, with the digest of its record."""
    columns = (
        "Variant",
        "Seed",
        "Status",
        "Validation loss",
        "Final training loss",
        "Record SHA-256",
        "Reproduced by",
    )
    rows = [
        (
            record.identity.variant,
            str(record.identity.seed),
            _status_text(record.status, record.training.diverged_step if record.training else None),
            _loss(record.validation_loss),
            _loss(record.training.final_loss if record.training else None),
            record.digest[:16],
            _reproduced(arm.reproductions.get(record.digest, ())),
        )
        for record in arm.records
    ]
    caption = (
        "Every run of this table, one record each. Reproduced by: who has run it again, in their own words, "
        "and what that gave; a dash where nobody has said so."
    )
    return Table("Runs", columns, tuple(rows), caption)


def _reproduced(told: Sequence[Reproduction]) -> str:
    return "; ".join(f"{each.by or 'unnamed'}: {each.verdict}" for each in told) or NO_VALUE


def _status_text(status: str, diverged_step: int | None) -> str:
    return status if diverged_step is None else f"{status} at step {diverged_step}"


def _loss(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.4f}"


def study(board: Board) -> list[Table]:
    """The arms of a study side by side. Differences are within each protocol; levels are not compared."""
    losses = _side_by_side(
        board,
        "Validation loss by arm",
        _loss_text,
        "Baseline: mean ± sd over seeds, nats/token. Others: difference to the same arm's baseline, paired "
        "by seed, with its 95 % t interval. Arms are different protocols: compare within a column only.",
    )
    gains = _side_by_side(
        board,
        "Peak composite gain by arm",
        _gain_text,
        "The larger of forward and backward, its peak over training, smallest to largest over seeds.",
    )
    diverged = _side_by_side(
        board, "Diverged runs by arm", _diverged_text, "Runs that ended early, of those started."
    )
    return [arms(board), losses, gains, diverged]


def arms(board: Board) -> Table:
    """What the arms of a study differ in."""
    fields = differing_fields(board)
    rows = [
        (arm.name, arm.protocol_id, *(values[index] for values in fields.values()))
        for index, arm in enumerate(board.arms)
    ]
    return Table("Arms", ("Arm", "Protocol id", *fields), tuple(rows), "All other protocol fields are equal.")


def _side_by_side(board: Board, title: str, text: Callable[[Arm, Row], str], caption: str) -> Table:
    def cell(variant: str, arm: Arm) -> str:
        row = next((row for row in arm.rows if row.variant == variant), None)
        return text(arm, row) if row else NO_VALUE

    rows = [(variant, *(cell(variant, arm) for arm in board.arms)) for variant in board.variants]
    return Table(title, ("Variant", *(arm.name for arm in board.arms)), tuple(rows), caption)


def _loss_text(arm: Arm, row: Row) -> str:
    cell = arm.cell(row, q.VALIDATION_LOSS)
    if cell.difference is None:
        return mean_and_sd(cell.spread, q.VALIDATION_LOSS)
    return f"{difference_text(cell, q.VALIDATION_LOSS)}, {cell.verdict}"


def _gain_text(arm: Arm, row: Row) -> str:
    peaks = [peak for record in row.runs.values() if (peak := q.GAIN_PEAK.of(record)) is not None]
    return value_range(peaks, len(row.runs))


def _diverged_text(arm: Arm, row: Row) -> str:
    return f"{len(row.diverged)} of {len(row.runs)}"


def unpaired_notes(arm: Arm) -> list[str]:
    """Seeds that one variant has and another has not, and runs without a result."""
    notes = [
        f"{row.variant} has no run for seed {listed(missing)}"
        for row in arm.rows
        if (missing := sorted(set(arm.seeds) - set(row.runs)))
    ]
    notes += [f"{variant} seed {seed} was started and has no record" for variant, seed in arm.missing]
    return [*notes, *(note for record in arm.records for note in _edition_notes(record))]


def _edition_notes(record: Record) -> Iterator[str]:
    """That a run has no result, or that its record replaces another."""
    run = f"{record.identity.variant} seed {record.identity.seed}"
    if record.status not in RESULTS:
        yield f"{run} is {record.status}: {record.failure}"
    if record.supersedes:
        why = record.correction or "an attempt that failed"
        yield f"{run} replaces the record {record.supersedes[:16]}: {why}"

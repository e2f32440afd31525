"""Tables of what these runs can and cannot show: power, A/A floor, seeds against items, budgets, coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.budgets import BUDGETS, AtBudget, at_equal_budgets
from mhc_bench.evidence.by_item import NoItemsError, item_differences, mean_item_differences
from mhc_bench.evidence.collate import BASELINE, Arm, Row
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.statistics.coverage import COMMAND, NOMINAL, SEEDS, Share, observed
from mhc_bench.evidence.statistics.crossed import Crossed, CrossedMean
from mhc_bench.evidence.statistics.power import sd_interval
from mhc_bench.evidence.tables import Table, averaged_tasks, headline_quantities, mean_quantities
from mhc_bench.evidence.text import (
    NO_VALUE,
    bounds,
    interval,
    listed,
    mean_and_sd,
    percent,
    shown,
    signed,
    with_unit,
)
from mhc_bench.evidence.verdicts import FEWEST_SEEDS_FOR_TASKS, judge

REPEAT = "baseline-aa"
"""The shipped configuration of an A/A run."""


def judged_quantities(arm: Arm) -> list[Quantity]:
    """The measures that stand alone: losses, and means over tasks."""
    return [*headline_quantities(arm), *mean_quantities(arm)]


def power(arm: Arm) -> Table:
    """The smallest difference that this many pairs would show, for each measure and variant."""
    columns = (
        "Measure",
        "Variant",
        "Pairs",
        "sd of differences",
        "95 % interval of the sd",
        "Detectable",
        "Range",
    )
    rows = [
        (with_unit(quantity), row.variant, *_power_cells(arm, row, quantity))
        for quantity in judged_quantities(arm)
        for row in arm.rows
        if row is not arm.baseline
    ]
    caption = (
        "Detectable: the smallest true difference that this many pairs would show with 80 % power (two-sided "
        "t test at 5 %, noncentral t), if the differences scattered exactly as observed. Range: the same for "
        "the ends of the sd's own 95 % interval (chi-square). A smaller difference may be there unseen."
    )
    return Table("What these seeds can show", columns, tuple(rows), caption)


def _power_cells(arm: Arm, row: Row, quantity: Quantity) -> tuple[str, ...]:
    found = arm.difference(row, quantity)
    if found is None or found.sd is None or found.detectable is None:
        return (str(found.n if found else 0), *[NO_VALUE] * 4)
    least = found.detectable
    return (
        str(found.n),
        shown(found.sd, quantity),
        _range(sd_interval(found.sd, found.n), quantity),
        shown(least.value, quantity),
        _range((least.low, least.high), quantity),
    )


def _range(ends: tuple[float, float], quantity: Quantity) -> str:
    return f"{shown(ends[0], quantity)} to {shown(ends[1], quantity)}"


def floor(arm: Arm) -> Table | None:
    """The baseline against itself, apart from its spread over seeds; None where there are no A/A runs."""
    columns = ("Measure", "Pairs", "Mean difference", "sd of differences", "Largest", "sd over seeds")
    rows = [
        (with_unit(quantity), *_floor_cells(arm, repeat, quantity))
        for repeat in arm.repeats
        for quantity in judged_quantities(arm)
    ]
    if not rows:
        return None
    caption = (
        "A/A: the baseline again with the same seed, weights and tokens, every start weight moved by "
        f"{_moves(arm)} of its size. Largest: of the differences' absolute values. This much two runs of the "
        "same thing differ; only more seeds average it out. Beside it stands the baseline's sd over seeds."
    )
    return Table("A/A floor", columns, tuple(rows), caption)


def _moves(arm: Arm) -> str:
    moves = {run.identity.perturbation for repeat in arm.repeats for run in repeat.runs.values()}
    return " or ".join(f"{move:g}" for move in sorted(moves))


def _floor_cells(arm: Arm, repeat: Row, quantity: Quantity) -> tuple[str, ...]:
    found = arm.floor(repeat, quantity)
    spread = arm.cell(arm.repeated, quantity).spread if arm.repeated else None
    over_seeds = NO_VALUE if spread is None or spread.sd is None else shown(spread.sd, quantity)
    if found is None or found.differences.mean is None:
        return ("0", *[NO_VALUE] * 3, over_seeds)
    sd = found.differences.sd
    return (
        str(found.differences.n),
        signed(found.differences.mean, quantity),
        NO_VALUE if sd is None else shown(sd, quantity),
        shown(found.largest, quantity),
        over_seeds,
    )


def by_item(arm: Arm) -> Table:
    """Each task's difference, and the mean's, with both its errors, for these items and for new ones."""
    start = ("Measure", "Variant", "Pairs", "Items", "Difference", "Seed sd", "Item error", "Shared")
    rows = [
        (_item_heading(quantity), row.variant, *_crossed_cells(found, quantity))
        for row, task, quantity in _by_task(arm, q.SCORES, q.GOLD)
        if isinstance(found := _crossed(arm, row, task, quantity), Crossed)
    ]
    rows += [
        (with_unit(quantity), row.variant, *_crossed_cells(found, quantity))
        for quantity, found, row in _means(arm)
    ]
    columns = (*start, "95 %, these items", "95 %, new items")
    return Table("Seeds and items", columns, tuple(rows), ITEMS_CAPTION)


ITEMS_CAPTION = (
    "All seeds answer the same items. Seed sd: of a pair's difference between seeds, the items' share taken "
    "out. Item error: standard error over the items of one pair's difference. Shared: what of it all seeds "
    "have in common, which more seeds do not reduce. The first interval speaks about these very items; "
    "the second adds the shared part and speaks about new items of the same kind. Neither is corrected for "
    "looking at several tasks. A mean over tasks counts every task the same, and its new items are of the "
    "same tasks."
)


def _by_task(arm: Arm, *families: str) -> Iterator[tuple[Row, str, Quantity]]:
    """Every row that is compared, for every task of each family."""
    for family in families:
        for task, quantity in zip(arm.tasks, q.task_quantities(arm.tasks, family), strict=True):
            yield from ((row, task, quantity) for row in arm.rows if row is not arm.baseline)


def _means(arm: Arm) -> Iterator[tuple[Quantity, CrossedMean, Row]]:
    """Every row that is compared, in the mean over tasks of each family, as far as there are items of all."""
    for family, of_tasks in ((q.SCORES, q.score_quantity), (q.GOLD, q.gold_quantity)):
        tasks = averaged_tasks(arm, family)
        for row in arm.rows:
            if row is not arm.baseline and len(tasks) > 1:
                try:
                    found = mean_item_differences(arm, row, tasks, family)
                except NoItemsError:
                    continue  # each task says why
                yield of_tasks(tasks), found, row


def _item_heading(quantity: Quantity) -> str:
    return (
        f"{quantity.title}: gold log-likelihood (nats)" if quantity.family == q.GOLD else with_unit(quantity)
    )


def _crossed(arm: Arm, row: Row, task: str, quantity: Quantity) -> Crossed | str:
    """Both errors of a task's difference, or why there are none."""
    try:
        return item_differences(arm, row, task, quantity.family)
    except NoItemsError as reason:
        return str(reason)


def _crossed_cells(found: CrossedMean, quantity: Quantity) -> tuple[str, ...]:
    return (
        str(found.seeds),
        str(found.items),
        signed(found.mean, quantity),
        shown(found.seed_sd, quantity),
        shown(found.document_error, quantity),
        shown(found.item_error, quantity),
        bounds(*found.same_items, quantity),
        bounds(*found.new_items, quantity),
    )


def gaps(arm: Arm) -> list[str]:
    """What of the above these records do not allow, and what would."""
    notes = (
        []
        if arm.repeats
        else [f"no A/A runs: the same command with variants=[{BASELINE},{REPEAT}] adds them"]
    )
    reasons: dict[str, list[str]] = defaultdict(list)
    for row, task, quantity in _by_task(arm, q.SCORES):
        found = _crossed(arm, row, task, quantity)
        if isinstance(found, str):
            reasons[found].append(f"{row.variant} in {task}")
    for reason, where in reasons.items():
        some = f"{listed(where[:3])}{f' and {len(where) - 3} more' if len(where) > 3 else ''}"
        notes.append(f"no comparison item by item of {some}: {reason}")
    return notes


TRAINING_LOSS = Quantity("training_loss", "Training loss", "nats/token", lambda record: None, False)


def budgets(arm: Arm) -> Table:
    """Training loss at equal tokens, FLOPs, wall-clock time and peak memory."""
    start = ("Equal", "Variant", f"Cost / {arm.reference}'s", "Compared at", "Mean ± sd", "Difference")
    columns = (*start, "95 % interval", "Pairs", "Verdict", "Rests on")
    rows = [
        (found.budget, row.variant, *_budget_cells(found))
        for row in arm.rows
        for found in at_equal_budgets(arm, row)
    ]
    caption = (
        "Equal tokens is the headline; the other rows are the same runs, read off their training-loss curves "
        "(mean over the 5 % of a run before the point) as far as both reach. Compared at: shares of the "
        f"variant's training, then of {arm.reference}'s. A run that is read before its end is read before "
        "its learning rate has fallen as far as at its end, which counts against it."
    )
    return Table("Equal budgets", columns, tuple(sorted(rows, key=_by_budget)), caption)


def _by_budget(cells: tuple[str, ...]) -> int:
    return BUDGETS.index(cells[0])


def _budget_cells(found: AtBudget) -> tuple[str, ...]:
    cost = NO_VALUE if found.relative_cost is None else f"{found.relative_cost:.2f}"
    if found.difference is None or found.reached is None or found.losses is None:
        return (cost, *[NO_VALUE] * 6, found.note)
    difference = found.difference
    return (
        cost,
        f"{percent(found.reached[0])}, {percent(found.reached[1])}",
        mean_and_sd(found.losses[0], TRAINING_LOSS),
        NO_VALUE if difference.mean is None else signed(difference.mean, TRAINING_LOSS),
        interval(difference, TRAINING_LOSS),
        str(difference.n),
        judge(difference).words,
        found.note,
    )


def nearest_coverage(arm: Arm) -> tuple[Share, ...]:
    """What was simulated for as many seeds as there are, or for the next smaller number."""
    return observed()[max((n for n in SEEDS if n <= len(arm.seeds)), default=SEEDS[0])]


def coverage(arm: Arm) -> Table:
    """How often intervals with this many seeds hold the truth, where that was simulated."""
    shares = nearest_coverage(arm)
    nearest, pairs = shares[0].n, len(arm.seeds)
    rows = [(each.case, *_coverage_cells(each)) for each in shares]
    caption = (
        f"Simulated with {nearest} seeds ({COMMAND}); this table has {pairs}. A 95 % interval should hold "
        "the truth in 95 of 100 cases, and call a variant better than itself in 2.5. Families of tasks are "
        "learned in jumps: where one variant learns a family more often than the other, few seeds may all "
        "show it, and the interval is then too sure."
    )
    return Table(
        "How far to trust the intervals",
        ("Case", "Interval holds the truth", 'False "better"', "Remark"),
        tuple(rows),
        caption,
    )


def _coverage_cells(share: Share) -> tuple[str, ...]:
    low, high = NOMINAL
    remark = ""
    if share.coverage is not None and share.coverage < low:
        remark = f"too sure: holds the truth in {percent(share.coverage, 1)} of cases, not 95 %"
    elif share.coverage is not None and share.coverage > high:
        remark = "wider than it need be"
    elif share.better is not None and share.better > 0.05:
        remark = f"too often: no task gets a verdict below {FEWEST_SEEDS_FOR_TASKS} seeds"
    return (_share(share.coverage), _share(share.better), remark or NO_VALUE)


def _share(value: float | None) -> str:
    return NO_VALUE if value is None else percent(value, 1)

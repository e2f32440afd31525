"""Two variants against each other, in words and in numbers: all that their paired runs say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mhc_bench.errors import UsageError, choose
from mhc_bench.evidence import quantities as q
from mhc_bench.evidence import tables, uncertainty
from mhc_bench.evidence.budgets import AtBudget, at_equal_budgets
from mhc_bench.evidence.by_item import NoItemsError, item_differences
from mhc_bench.evidence.collate import BASELINE, Arm, Row
from mhc_bench.evidence.export import metric
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.statistics.power import sd_interval
from mhc_bench.evidence.text import NO_VALUE, interval, listed, percent, probability, shown, signed, with_unit
from mhc_bench.evidence.verdicts import judge


def paired(arm: Arm, first: str, second: str) -> tuple[Arm, Row]:
    """The arm with these two rows alone, the second as the reference, and the row of the first.

    Raises:
        UsageError: a variant that has no runs here, naming the nearest; the same one twice.
    """
    names = [row.variant for row in arm.rows]
    for name in (first, second):
        choose("variant", name, names)
    if first == second:
        raise UsageError(f"{first} against itself: expected two different variants of {', '.join(names)}")
    both = arm.against(second, first)
    return both, both.rows[1]


def words(arm: Arm, row: Row) -> list[str]:
    """What a reader should take away, a line for each measure that stands alone."""
    base = arm.baseline
    assert base is not None
    seeds = sorted(row.runs.keys() & base.runs.keys())
    lines = [f"{row.variant} minus {base.variant}: {len(seeds)} pairs (seeds {listed(seeds) or 'none'})."]
    lines += [_measure_line(arm, row, quantity) for quantity in uncertainty.judged_quantities(arm)]
    if arm.tasks:
        lines.append(_tasks_line(arm, row))
    lines += [line for repeat in arm.repeats if (line := _floor_line(arm, repeat))]
    lines += [f"Equal {found.budget}: {_budget_words(found)}" for found in at_equal_budgets(arm, row)[1:]]
    return [*lines, *(f"Gap: {note}." for note in (*tables.unpaired_notes(arm), *uncertainty.gaps(arm)))]


def _measure_line(arm: Arm, row: Row, quantity: Quantity) -> str:
    cell, base = arm.cell(row, quantity), arm.baseline
    found = cell.difference
    assert base is not None
    start = f"{with_unit(quantity)}: {_level(arm, row, quantity)}, {_level(arm, base, quantity)}"
    if found is None or found.mean is None:
        return f"{start}; {cell.verdict or 'not compared'}."
    p = "" if found.p is None else f", p {probability(found.p)}"
    better = "higher" if quantity.higher_is_better else "lower"
    text = f"{start}; difference {signed(found.mean, quantity)} ({better} is better), "
    text += f"95 % interval {interval(found, quantity)}{p}: {cell.verdict}."
    if (least := found.detectable) is not None:
        ends = f"{shown(least.low, quantity)} to {shown(least.high, quantity)}"
        text += f" Differences from {shown(least.value, quantity)} on ({ends}) show with 80 % power."
    return text


def _level(arm: Arm, row: Row, quantity: Quantity) -> str:
    return f"{row.variant} {shown(arm.cell(row, quantity).spread.mean, quantity)}"


def _tasks_line(arm: Arm, row: Row) -> str:
    groups: dict[str, list[str]] = {}
    for task, quantity in zip(arm.tasks, q.task_quantities(arm.tasks, q.SCORES), strict=True):
        cell = arm.cell(row, quantity)
        key = cell.outcome if cell.outcome in ("better", "worse", "not shown") else cell.verdict
        groups.setdefault(str(key), []).append(task)
    parts = [f"{verdict} in {listed(tasks)}" for verdict, tasks in groups.items()]
    return f"Tasks, after Holm's correction: {'; '.join(parts)}."


def _floor_line(arm: Arm, repeat: Row) -> str | None:
    floor = arm.floor(repeat, q.VALIDATION_LOSS)
    if floor is None:
        return None
    sd = floor.differences.sd
    scatter = "" if sd is None else f"sd {shown(sd, q.VALIDATION_LOSS)}, "
    return (
        f"A/A floor: validation losses of {BASELINE} and of itself from a start moved by a hair: {scatter}at "
        f"most {shown(floor.largest, q.VALIDATION_LOSS)} over {floor.differences.n} pairs."
    )


def _budget_words(found: AtBudget) -> str:
    if found.difference is None or found.difference.mean is None or found.reached is None:
        return f"{found.note}."
    loss = uncertainty.TRAINING_LOSS
    around = interval(found.difference, loss)
    ours, theirs = map(percent, found.reached)
    return (
        f"training loss after {ours} of the training, and {theirs} of the other's, differs by "
        f"{signed(found.difference.mean, loss)}{'' if around == NO_VALUE else f' {around}'}: "
        f"{judge(found.difference).words}; {found.note}."
    )


def details(arm: Arm) -> list[tables.Table]:
    """The tables behind the words."""
    downstream = [tables.task_comparison(arm), uncertainty.by_item(arm)] if arm.tasks else []
    found = [uncertainty.power(arm), *downstream, uncertainty.budgets(arm), uncertainty.coverage(arm)]
    return [table for table in found if table.rows]


def numbers(arm: Arm, row: Row) -> dict[str, Any]:
    """The same as plain values: unscaled, None where there is none."""
    base = arm.baseline
    assert base is not None
    return {
        "arm": arm.name,
        "protocol_id": arm.protocol_id,
        "variants": [row.variant, base.variant],
        "seeds": sorted(row.runs.keys() & base.runs.keys()),
        "measures": [_measure(arm, row, quantity) for quantity in uncertainty.judged_quantities(arm)],
        "tasks": [
            _task(arm, row, task, quantity)
            for family in (q.SCORES, q.GOLD)
            for task, quantity in zip(arm.tasks, q.task_quantities(arm.tasks, family), strict=True)
        ],
        "floor": [_floor(arm, repeat) for repeat in arm.repeats],
        "budgets": [asdict(found) for found in at_equal_budgets(arm, row)],
        "coverage": [asdict(share) for share in uncertainty.nearest_coverage(arm)],
        "gaps": [*tables.unpaired_notes(arm), *uncertainty.gaps(arm)],
    }


def _measure(arm: Arm, row: Row, quantity: Quantity) -> dict[str, Any]:
    found, base = arm.difference(row, quantity), arm.baseline
    assert base is not None
    sd = found.sd if found else None
    return {
        **metric(arm, row, quantity),
        "reference": {key: metric(arm, base, quantity)[key] for key in ("n", "mean", "sd")},
        "sd_of_differences": sd,
        "sd_interval": sd_interval(sd, found.n) if found and sd is not None else None,
        "outcome": arm.cell(row, quantity).outcome,
    }


def _task(arm: Arm, row: Row, task: str, quantity: Quantity) -> dict[str, Any]:
    try:
        by_item, reason = asdict(item_differences(arm, row, task, quantity.family)), None
    except NoItemsError as error:
        by_item, reason = None, str(error)
    return {**_measure(arm, row, quantity), "by_item": by_item, "no_items": reason}


def _floor(arm: Arm, repeat: Row) -> dict[str, Any]:
    measures = {
        quantity.key: asdict(found)
        for quantity in uncertainty.judged_quantities(arm)
        if (found := arm.floor(repeat, quantity))
    }
    return {"variant": repeat.variant, "measures": measures}

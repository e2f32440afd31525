"""The same runs at equal tokens, FLOPs, wall-clock time and peak memory, read off their loss curves."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from mhc_bench.evidence.collate import Arm, Row
from mhc_bench.evidence.record import LOSS, Record
from mhc_bench.evidence.statistics import Difference, Spread, paired_difference, spread

WINDOW = 0.05
"""Of a whole run: the loss at a point is the mean over the steps of this share before it, as `final_loss`."""
EQUAL_MEMORY = 0.02
"""Relative: peaks that differ by less are equal."""
BUDGETS = ("tokens", "FLOPs", "wall-clock time", "peak memory")


@dataclass(frozen=True)
class AtBudget:
    """Training loss of a variant and of the reference where both have spent the same."""

    budget: str
    relative_cost: float | None
    """What the variant takes of the budget for the same training, over what the reference takes."""
    reached: tuple[float, float] | None
    """Shares of their training at which the variant and the reference are compared."""
    losses: tuple[Spread, Spread] | None
    difference: Difference | None
    note: str
    """What the comparison rests on, or why there is none."""


def at_equal_budgets(arm: Arm, row: Row) -> list[AtBudget]:
    """A variant against the reference under each budget, as far as the loss curves of both reach."""
    base = arm.baseline
    if base is None or row is base:
        return []
    return [_at(arm, row, base, budget) for budget in BUDGETS]


def _at(arm: Arm, row: Row, base: Row, budget: str) -> AtBudget:
    if budget == "FLOPs" and len(_flops_rules(row, base)) > 1:
        return _none(budget, None, "not comparable: counted by two rules (docs/statistics.md)")
    if budget in ("wall-clock time", "peak memory") and len(arm.cost_ids) > 1:
        return _none(budget, None, f"not comparable: {len(arm.cost_ids)} cost ids")
    ours, theirs = _cost(row, budget), _cost(base, budget)
    if ours is None or not theirs:
        return _none(budget, None, "not measured")
    ratio = ours / theirs
    if budget == "peak memory":
        if abs(ratio - 1) > EQUAL_MEMORY:
            return _none(
                budget, ratio, f"no overlap: these runs take {ratio:.2f} times the memory at every step"
            )
        return _compare(row, base, budget, ratio, (1.0, 1.0))
    reached = (min(1.0, 1 / ratio), min(1.0, ratio))
    return _compare(row, base, budget, ratio, reached)


def _none(budget: str, ratio: float | None, note: str) -> AtBudget:
    return AtBudget(budget, ratio, None, None, None, note)


NOTES = {
    "tokens": "both runs whole",
    "FLOPs": "counted FLOPs per token",
    "wall-clock time": "step times of both taken in turn in one process; validation and evaluation apart",
    "peak memory": f"peaks equal within {100 * EQUAL_MEMORY:.0f} %: both runs whole",
}

RULE_1 = ", by rule 1 (docs/statistics.md)"


def _flops_rules(*rows: Row) -> set[int]:
    return {run.training.flops_rule for row in rows for run in row.runs.values() if run.training}


def _compare(row: Row, base: Row, budget: str, ratio: float, reached: tuple[float, float]) -> AtBudget:
    ours, theirs = _losses(row, reached[0]), _losses(base, reached[1])
    difference = paired_difference(ours, theirs, higher_is_better=False)
    by_rule = RULE_1 if budget == "FLOPs" and 1 in _flops_rules(row, base) else ""
    note = NOTES[budget] + by_rule if difference.n else "no overlap: the loss curves do not reach this budget"
    return AtBudget(budget, ratio, reached, (spread(ours), spread(theirs)), difference, note)


def _losses(row: Row, share: float) -> dict[int, float]:
    found = {seed: loss_at(run, share) for seed, run in row.runs.items()}
    return {seed: loss for seed, loss in found.items() if loss is not None}


def _cost(row: Row, budget: str) -> float | None:
    """Mean over the runs of what one of them takes, in any unit that the reference shares."""
    known = [value for run in row.runs.values() if (value := _cost_of(run, budget)) is not None]
    return sum(known) / len(known) if known else None


def _cost_of(run: Record, budget: str) -> float | None:
    if run.training is None:
        return None
    if budget == "FLOPs":
        return float(run.training.flops_per_token)
    if budget == "wall-clock time":
        return run.cost.step_time.ratio_to_baseline if run.cost.step_time else None
    if budget == "peak memory":
        return run.training.peak_memory_bytes
    return 1.0


def loss_at(run: Record, share: float) -> float | None:
    """Training loss after this share (0 to 1] of the planned steps: mean over the 5 % of a run before it.

    A point of the curve is the mean of the steps since the one before. None where the run ended earlier, or
    had a loss there that was not finite.
    """
    curve, planned = run.curve(LOSS), _planned_steps(run)
    if curve is None or not curve.steps or planned is None:
        return None
    end = share * planned
    if end > curve.steps[-1]:
        return None
    start = max(0.0, end - max(1, round(planned * WINDOW)))
    total, first = 0.0, bisect.bisect_right(curve.steps, start)
    for place in range(first, len(curve.steps)):
        since = curve.steps[place - 1] if place else 0
        value = curve.values[place]
        if since >= end:
            break
        if value is None:
            return None
        total += value * (min(end, curve.steps[place]) - max(start, since))
    return total / (end - start)


def _planned_steps(run: Record) -> int | None:
    training = run.configuration.get("training")
    steps = training.get("steps") if isinstance(training, dict) else None
    return steps if isinstance(steps, int) else None

"""A difference in words: better, worse, not shown (with how many seeds would be needed), or no verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mhc_bench.evidence.statistics import ALPHA, Difference
from mhc_bench.evidence.statistics.power import MOST_SEEDS

FEWEST_SEEDS_FOR_TASKS = 5
"""Below this a single task gets its interval alone: Holm over eight tasks at n = 3 would need |t| > 12."""

Outcome = Literal["better", "worse", "not shown", "no verdict"]


@dataclass(frozen=True)
class Judgement:
    """A verdict: what it comes to, and in words."""

    outcome: Outcome
    words: str
    seeds_needed: int | None = None
    """Of what was not shown: seeds that would show a difference as large as the observed one."""


@dataclass(frozen=True)
class Adjusted:
    """A task's p after Holm's correction over the `tests` tasks of its kind."""

    p: float
    tests: int


def judge(difference: Difference) -> Judgement:
    """The verdict on a measure that stands alone."""
    if difference.verdict in ("better", "worse"):
        return Judgement(difference.verdict, difference.verdict)
    if difference.verdict != "not shown":
        return Judgement("no verdict", difference.verdict)
    return _not_shown(difference, difference.needed())


def judge_task(difference: Difference, adjusted: Adjusted | None) -> Judgement:
    """The verdict on one of several tasks: from the corrected p, and only from five seeds on."""
    if adjusted is None:
        return Judgement("no verdict", difference.verdict)
    if difference.n < FEWEST_SEEDS_FOR_TASKS:
        return Judgement("no verdict", f"no verdict below {FEWEST_SEEDS_FOR_TASKS} seeds")
    if adjusted.p <= ALPHA:
        return judge(difference)
    # enough seeds for the strictest step of the correction, whatever the other tasks show
    needed = difference.needed(ALPHA / adjusted.tests)
    return _not_shown(difference, needed and max(needed, FEWEST_SEEDS_FOR_TASKS))


def _not_shown(difference: Difference, needed: int | None) -> Judgement:
    if not difference.mean:
        why = "no difference at all"
    elif needed is None:
        why = f"would need more than {MOST_SEEDS} seeds"
    else:
        why = f"would need about {needed} seeds"
    return Judgement("not shown", f"not shown ({why})", needed)

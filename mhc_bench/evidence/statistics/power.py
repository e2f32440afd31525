"""What a number of paired seeds can show: the smallest detectable difference, and the seeds that one needs.

A difference is *shown* when its 95 % t interval lies wholly on the right side of 0. The chance of that is the
noncentral t distribution's, with noncentrality (true difference / sd of the pairs' differences) * sqrt(n).
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass

from scipy import special

ALPHA = 0.05
"""Two-sided level of a test: 1 less the level of an interval."""
POWER = 0.8
MOST_SEEDS = 1000
"""Beyond this many no number of seeds is given: the difference is too small to talk about."""


@dataclass(frozen=True)
class Detectable:
    """The smallest true difference that would be shown with 80 % power, if the sd were exactly as observed.

    `low` and `high` are the same for the two ends of the sd's own 95 % interval.
    """

    value: float
    low: float
    high: float


def detectable_difference(sd: float, n: int) -> Detectable | None:
    """The smallest difference that `n` pairs show with 80 % power; None for fewer than two.

    Args:
        sd: standard deviation of the pairs' differences (n - 1 in the denominator).
    """
    if n < 2:
        return None
    effect = detectable_effect(n)
    low, high = sd_interval(sd, n)
    return Detectable(effect * sd, effect * low, effect * high)


def sd_interval(sd: float, n: int, level: float = 1 - ALPHA) -> tuple[float, float]:
    """The chi-square interval of a standard deviation estimated from `n` >= 2 normal values."""
    tail = (1 - level) / 2
    squares = (n - 1) * sd**2
    # chdtri inverts the upper tail
    return (
        math.sqrt(squares / special.chdtri(n - 1, tail)),
        math.sqrt(squares / special.chdtri(n - 1, 1 - tail)),
    )


@functools.lru_cache(maxsize=4096)
def detectable_effect(n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The true difference, in standard deviations of the pairs' differences, that `n` >= 2 pairs show."""
    critical = special.stdtrit(n - 1, 1 - alpha / 2)
    return float(special.nctdtrinc(n - 1, 1 - power, critical)) / math.sqrt(n)


def shown_with(effect: float, n: int, alpha: float = ALPHA) -> float:
    """The chance that `n` >= 2 pairs show a difference of `effect` standard deviations, on its own side."""
    critical = special.stdtrit(n - 1, 1 - alpha / 2)
    return 1 - float(special.nctdtr(n - 1, effect * math.sqrt(n), critical))


@functools.lru_cache(maxsize=4096)
def seeds_needed(effect: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """The fewest pairs that show a difference of `effect` > 0 sd; None beyond `MOST_SEEDS`."""
    candidates = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(candidates, power, key=lambda n: shown_with(effect, n, alpha))
    return candidates[place] if place < len(candidates) else None

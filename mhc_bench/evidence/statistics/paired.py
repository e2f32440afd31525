"""Statistics over seeds: spread of one variant, and differences to a reference paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from scipy import special

from mhc_bench.evidence.statistics.power import ALPHA, Detectable, detectable_difference, seeds_needed

LEVEL = 1 - ALPHA
ROUNDING = 1e-12
"""Relative spread below which differences count as equal: it is what subtraction leaves."""

Verdict = Literal[
    "better", "worse", "not shown", "one seed, no interval", "no spread, no interval", "no pair"
]


@dataclass(frozen=True)
class Spread:
    """A quantity over the seeds of one variant. `sd` (n - 1 in the denominator) is None for one seed."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """Variant minus reference, paired by seed; `low` and `high` bound the 95 % t interval of the mean."""

    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided p of the paired t test; None where there is no interval."""
    verdict: Verdict
    unpaired: tuple[int, ...]
    """Seeds with a value in one of the two only: in no difference, but never dropped silently."""

    @cached_property
    def detectable(self) -> Detectable | None:
        """The smallest true difference that this many pairs would show with 80 % power; None without sd."""
        return None if self.sd is None else detectable_difference(self.sd, self.n)

    def needed(self, alpha: float = ALPHA) -> int | None:
        """Seeds that would show the observed difference with 80 % power; None where none would.

        Args:
            alpha: two-sided level of the test: below 5 % where several are made.
        """
        if self.mean is None or not self.sd:
            return None
        return seeds_needed(abs(self.mean) / self.sd, alpha)


def spread(values: Mapping[int, float]) -> Spread:
    """Mean and standard deviation of `{seed: value}`.

    Raises:
        ValueError: for a value that is not finite.
    """
    sample = _finite_sample(values)
    n = len(sample)
    if n == 0:
        return Spread(0, None, None)
    mean = math.fsum(sample) / n
    squares = math.fsum((value - mean) ** 2 for value in sample)
    return Spread(n, mean, math.sqrt(squares / (n - 1)) if n > 1 else None)


def paired_difference(
    variant: Mapping[int, float], reference: Mapping[int, float], *, higher_is_better: bool
) -> Difference:
    """The mean of variant - reference over their common seeds, with its 95 % t interval and a verdict.

    Raises:
        ValueError: for a value that is not finite.
    """
    common = sorted(variant.keys() & reference.keys())
    unpaired = tuple(sorted(variant.keys() ^ reference.keys()))
    of_seeds = spread({seed: variant[seed] - reference[seed] for seed in common})
    interval = t_interval(of_seeds)
    low, high = interval or (None, None)
    p = None if interval is None else t_test(of_seeds)
    verdict = _verdict(of_seeds, interval, higher_is_better)
    return Difference(of_seeds.n, of_seeds.mean, of_seeds.sd, low, high, p, verdict, unpaired)


def t_interval(sample: Spread, level: float = LEVEL) -> tuple[float, float] | None:
    """Student's interval of the mean; None where it has none: one value, or equal values other than 0.

    Equal differences other than 0 would give an interval of no width: certainty that few seeds cannot give.
    """
    if sample.mean is None or sample.sd is None:
        return None
    if sample.mean != 0 and sample.sd <= ROUNDING * abs(sample.mean):
        return None
    half = t_quantile(level, sample.n - 1) * sample.sd / math.sqrt(sample.n)
    return sample.mean - half, sample.mean + half


def t_quantile(level: float, df: float) -> float:
    """How many standard errors an interval of this level reaches to either side."""
    return float(special.stdtrit(df, (1 + level) / 2))


def t_test(sample: Spread) -> float:
    """Two-sided p of the mean being 0, by Student's t; 1 where all values are 0.

    Needs at least two values that are not all equal, or all 0.
    """
    assert sample.mean is not None and sample.sd is not None
    if sample.sd == 0:
        return 1.0
    t = abs(sample.mean) * math.sqrt(sample.n) / sample.sd
    return float(2 * special.stdtr(sample.n - 1, -t))


def prediction_interval(sample: Spread, level: float = LEVEL) -> tuple[float, float] | None:
    """Where one more run lies: Student's interval of a single value; None for one value or equal ones.

    The interval of the mean would be too narrow: it shrinks with every seed, and the runs do not.
    """
    if sample.mean is None or not sample.sd:
        return None
    half = t_quantile(level, sample.n - 1) * sample.sd * math.sqrt(1 + 1 / sample.n)
    return sample.mean - half, sample.mean + half


def _verdict(sample: Spread, interval: tuple[float, float] | None, higher_is_better: bool) -> Verdict:
    if sample.n == 0:
        return "no pair"
    if interval is None:
        return "one seed, no interval" if sample.n == 1 else "no spread, no interval"
    low, high = interval
    if low <= 0 <= high:
        return "not shown"
    return "better" if (low > 0) == higher_is_better else "worse"


def _finite_sample(values: Mapping[int, float]) -> list[float]:
    sample = [values[seed] for seed in sorted(values)]
    if not all(map(math.isfinite, sample)):
        raise ValueError(f"values must be finite, got {values}")
    return sample

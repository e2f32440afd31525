"""Statistics over seeds: spread of one variant, and differences to the baseline paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

LEVEL = 0.95
ROUNDING = 1e-12
"""Relative spread below which differences count as equal: it is what subtraction leaves."""

Verdict = Literal[
    "better", "worse", "not separated", "one seed, no interval", "no spread, no interval", "no pair"
]


@dataclass(frozen=True)
class Spread:
    """A quantity over the seeds of one variant. `sd` (n - 1 in the denominator) is None for one seed."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """Variant minus baseline, paired by seed; `low` and `high` bound the 95 % t interval of the mean."""

    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    unpaired: tuple[int, ...]
    """Seeds with a value in one of the two only: in no difference, but never dropped silently."""


def spread(values: Mapping[int, float]) -> Spread:
    """Mean and standard deviation of `{seed: value}`.

    Raises:
        ValueError: for a value that is not finite.
    """
    sample = _finite_sample(values)
    if sample.size == 0:
        return Spread(0, None, None)
    sd = float(sample.std(ddof=1)) if sample.size > 1 else None
    return Spread(int(sample.size), float(sample.mean()), sd)


def paired_difference(
    variant: Mapping[int, float], baseline: Mapping[int, float], *, higher_is_better: bool
) -> Difference:
    """The mean of variant - baseline over their common seeds, with its 95 % t interval and a verdict.

    Raises:
        ValueError: for a value that is not finite.
    """
    common = sorted(variant.keys() & baseline.keys())
    unpaired = tuple(sorted(variant.keys() ^ baseline.keys()))
    of_seeds = spread({seed: variant[seed] - baseline[seed] for seed in common})
    interval = t_interval(of_seeds)
    low, high = interval or (None, None)
    verdict = _verdict(of_seeds, interval, higher_is_better)
    return Difference(of_seeds.n, of_seeds.mean, of_seeds.sd, low, high, verdict, unpaired)


def t_interval(sample: Spread, level: float = LEVEL) -> tuple[float, float] | None:
    """Student's interval of the mean; None where it has none: one value, or equal values other than 0.

    Equal differences other than 0 would give an interval of no width: certainty that few seeds cannot give.
    """
    if sample.mean is None or sample.sd is None:
        return None
    if sample.mean != 0 and sample.sd <= ROUNDING * abs(sample.mean):
        return None
    half = float(stats.t.ppf((1 + level) / 2, sample.n - 1)) * sample.sd / math.sqrt(sample.n)
    return sample.mean - half, sample.mean + half


def prediction_interval(sample: Spread, level: float = LEVEL) -> tuple[float, float] | None:
    """Where one more run lies: Student's interval of a single value; None for one value or equal ones.

    The interval of the mean would be too narrow: it shrinks with every seed, and the runs do not.
    """
    if sample.mean is None or not sample.sd:
        return None
    half = float(stats.t.ppf((1 + level) / 2, sample.n - 1)) * sample.sd * math.sqrt(1 + 1 / sample.n)
    return sample.mean - half, sample.mean + half


def _verdict(sample: Spread, interval: tuple[float, float] | None, higher_is_better: bool) -> Verdict:
    if sample.n == 0:
        return "no pair"
    if interval is None:
        return "one seed, no interval" if sample.n == 1 else "no spread, no interval"
    low, high = interval
    if low <= 0 <= high:
        return "not separated"
    return "better" if (low > 0) == higher_is_better else "worse"


def _finite_sample(values: Mapping[int, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    sample = np.array([values[seed] for seed in sorted(values)], dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite, got {values}")
    return sample

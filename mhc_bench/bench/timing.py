"""Interleaved measurement: several things in turn, one step each, so that a busy machine is busy for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A median with a 95 % interval from order statistics, which assumes no distribution."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Quantiles:
    """Seconds of one step."""

    p10: float
    p50: float
    p90: float


def interleave(
    measurements: Sequence[Callable[[], float]],
    rounds: int,
    warmup: int,
    seconds: float | None = None,
) -> npt.NDArray[np.float64]:
    """Take `measurements` in turn, `warmup` and then up to `rounds` times: `[rounds, len(measurements)]`.

    The order rotates from round to round, so that none is always the one after the slowest.

    Args:
        measurements: each does its work once and returns the seconds that count.
        seconds: stop after this time, with at least three rounds measured.
    """
    began, rows = time.perf_counter(), []
    for turn in range(warmup + rounds):
        row = np.zeros(len(measurements))
        for place in range(len(measurements)):
            index = (place + turn) % len(measurements)
            row[index] = measurements[index]()
        if turn >= warmup:
            rows.append(row)
        if seconds is not None and len(rows) >= 3 and time.perf_counter() - began > seconds:
            break
    return np.array(rows).reshape(-1, len(measurements))


def quantiles(times: npt.NDArray[np.float64]) -> Quantiles:
    """Deciles of `times`."""
    p10, p50, p90 = (float(value) for value in np.quantile(times, [0.1, 0.5, 0.9]))
    return Quantiles(p10, p50, p90)


def median_interval(values: npt.NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Median of `values` between the order statistics that cover it with at least `confidence`.

    With fewer than six values no pair of order statistics does; then it is the whole range.
    """
    ordered = np.sort(values)
    n = len(ordered)
    # the number of values below the true median is binomial(n, 1/2)
    rank = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))
    low = max(rank - 1, 0)
    return Interval(float(np.median(ordered)), float(ordered[low]), float(ordered[n - 1 - low]))

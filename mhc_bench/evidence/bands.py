"""Curves of several seeds as one line with a band: what figures and page draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mhc_bench.evidence.collate import Row

Places = np.ndarray[tuple[int], np.dtype[np.int64]]
Line = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Band:
    """Seeds over places (steps, or sublayers) [P]; NaN where there is nothing to draw."""

    places: Places
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    """[seeds, P]"""
    middle: Line
    """Mean over all seeds, geometric on a logarithmic axis. It ends with the first seed: a mean of
    survivors would mislead."""
    low: Line
    high: Line


def band_of_curve(row: Row, name: str, *, log: bool) -> Band | None:
    """A sampled curve of all runs of a variant; None where no run has it."""
    curves = [curve for run in row.runs.values() if (curve := run.curve(name))]
    return band([(curve.steps, curve.values) for curve in curves], log=log)


def band(curves: Sequence[tuple[Sequence[int], Sequence[float | None]]], *, log: bool) -> Band | None:
    """One band over curves, each places and values; on a logarithmic axis only positive values are drawn.

    A curve without a value at a place of another, as of a run that diverged, goes straight from its value
    before to the one after.
    """
    places = np.array(sorted({place for each, _ in curves for place in each}), dtype=np.int64)
    if not len(places):
        return None
    values = np.array([_at(places, *each, log=log) for each in curves])
    return Band(places, values, *_summary(values, geometric=log))


def _at(places: Places, own: Sequence[int], found: Sequence[float | None], *, log: bool) -> Line:
    """One curve's values at `places`; NaN before its first place, after its last, and beside a gap."""
    if not len(own):
        return np.full(len(places), np.nan)
    values = np.array([math.nan if v is None or (log and v <= 0) else v for v in found])
    drawn = np.log(values) if log else values
    between = np.interp(places, own, drawn, left=math.nan, right=math.nan)
    line: Line = np.exp(between) if log else between
    line[np.searchsorted(places, own)] = values  # to the bit, and beside a gap too
    return line


def _summary(
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]], *, geometric: bool
) -> tuple[Line, Line, Line]:
    """Mean, lowest and highest."""
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=0)
    high = np.where(known, values, -np.inf).max(axis=0)
    middle = np.exp(np.log(values).mean(axis=0)) if geometric else values.mean(axis=0)
    none = ~known.any(axis=0)
    return middle, np.where(none, np.nan, low), np.where(none, np.nan, high)


def curve_ends(row: Row, name: str, *, log: bool) -> list[tuple[int, float]]:
    """Where the curves of diverged runs end."""
    ends = []
    for seed in row.diverged:
        curve = row.runs[seed].curve(name)
        drawn = zip(curve.steps, curve.values, strict=True) if curve else ()
        finite = [(step, value) for step, value in drawn if value is not None and (value > 0 or not log)]
        ends.extend(finite[-1:])
    return ends

"""The check of gains and matrices over depth against each other and the probes of the whole model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mhc_bench.evidence.depth import Depth, Matrix
from mhc_bench.evidence.record import GAIN_BACKWARD, GAIN_FORWARD
from mhc_bench.evidence.verify.checks import Entry, Finding, Tools, record_check
from mhc_bench.evidence.verify.training import near

SIX_DIGITS = 1e-5
"""Relative: matrices and gains over depth are written with six digits."""
ROWS, COLUMNS = 1, 0
"""The axis of [out, in] over which a sum is a row's or a column's."""


@record_check("depth", "gains over depth end at those of the whole model and bound the sums of the matrices")
def depth(entry: Entry, tools: Tools) -> Iterator[Finding]:
    mechanism, training = entry.record.mechanism, entry.record.training
    if mechanism is None or training is None or mechanism.depth is None:
        return
    found = mechanism.depth
    if found.step > training.steps:
        yield entry.problem(f"depth at step {found.step}", f"at most {training.steps}")
    for name, end in _ends(found).items():
        final = mechanism.probes[name].final if name in mechanism.probes else None
        if end is not None and final is not None and not near(end, final, SIX_DIGITS):
            yield entry.problem(f"{name} over depth ends at {end}", f"{final}, as its probe")
    yield from _sums(entry, found)


def _ends(found: Depth) -> dict[str, float | None]:
    """The composite gains of the whole model."""
    return {
        GAIN_FORWARD: found.composite_forward_gain[-1],
        GAIN_BACKWARD: found.composite_backward_gain[0],
    }


def _sums(entry: Entry, found: Depth) -> Iterator[Finding]:
    """The size of a mean over tokens is at most the mean of the sizes."""
    ends, matrices = _ends(found), (*found.mixing, found.product)
    for axis, each, whole in (
        (ROWS, found.forward_gain, ends[GAIN_FORWARD]),
        (COLUMNS, found.backward_gain, ends[GAIN_BACKWARD]),
    ):
        for index, (matrix, gain) in enumerate(zip(matrices, (*each, whole), strict=True)):
            numbers = _numbers(matrix)
            largest = _largest_sum(numbers, axis)
            # large entries of both signs leave less of a sum than what their last digit is worth
            slack = SIX_DIGITS * (1 + _largest_sum(np.abs(numbers), axis))
            if gain is not None and largest > gain * (1 + SIX_DIGITS) + slack:
                yield entry.problem(f"a sum of {largest:.6g} in matrix {index}", f"at most its gain, {gain}")


def _numbers(matrix: Matrix) -> npt.NDArray[np.float64]:
    """NaN, which no bound refuses, where an entry is unknown."""
    return np.array(matrix, dtype=np.float64)


def _largest_sum(numbers: npt.NDArray[np.float64], axis: int) -> float:
    """Amax along an axis."""
    return float(np.abs(numbers.sum(axis=axis)).max())

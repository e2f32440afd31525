"""Order of a finite set of rows: one permutation per epoch, from integer arithmetic alone.

No library generator is used, so that the order stays the same over their versions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """The 64-bit finaliser of SplitMix64: a bijection that scatters neighbours."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def permutation(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """The order of `size` rows in `epoch` of the stream `seed`, `[size]`."""
    key = np.uint64(mix(mix(seed) ^ epoch))
    golden = np.uint64(0x9E3779B97F4A7C15)
    value = key + golden * np.arange(1, size + 1, dtype=np.uint64)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(value ^ (value >> np.uint64(31)), kind="stable").astype(np.int64)

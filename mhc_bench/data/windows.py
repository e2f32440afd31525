"""Rows of a packed token stream: windows that overlap by one token, in an order of (seed, epoch)."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from mhc_bench.data.order import permutation
from mhc_bench.errors import UsageError


def count_windows(tokens: int, length: int, part: str) -> int:
    """Rows of `length` tokens in a stream of `tokens`.

    Raises:
        UsageError: when there is not one; `part` says which stream.
    """
    count = (tokens - 1) // (length - 1)
    if count < 1:
        raise UsageError(
            f"data.path has {tokens} {part} tokens: expected at least {length}, one row of "
            "training.sequence_length + 1"
        )
    return count


def training_start(seed: int, index: int, length: int, windows: int) -> int:
    """Where row `index` of the stream of `seed` begins: every window once per epoch."""
    epoch, place = divmod(index, windows)
    return int(_order(seed, epoch, windows)[place]) * (length - 1)


def validation_starts(tokens: int, length: int, wanted: int, split: str) -> npt.NDArray[np.int64]:
    """Where the validation rows begin, `[R]`, about `wanted` tokens in all.

    `validation` has the first windows, `selection` as many of the last ones.

    Raises:
        UsageError: when the two would share a window.
    """
    windows = count_windows(tokens, length, "validation")
    rows = max(1, min(windows, wanted // (length - 1)))
    first = 0 if split == "validation" else windows - rows
    if split == "selection" and windows < 2 * rows:
        raise UsageError(
            f"data.validation_split is {split}: {windows} rows are held out, expected {2 * rows}, twice "
            "what is validated on; lower data.validation_tokens or hold out more"
        )
    return (first + np.arange(rows, dtype=np.int64)) * (length - 1)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    return permutation(seed, epoch, size)

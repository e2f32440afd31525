"""The digest of a token stream: a chain over the optimizer steps, the same for any number of devices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from mhc_bench.data.source import Row

EMPTY = bytes(32)
"""The chain before the first step."""


def row_digest(row: Row) -> bytes:
    """SHA-256 of a row's token ids as little-endian 32-bit integers."""
    return hashlib.sha256(np.ascontiguousarray(row, dtype="<i4").tobytes()).digest()


def extend(chain: bytes, rows: Iterable[bytes]) -> bytes:
    """The chain after one more step: SHA-256 of the chain so far and its row digests, in batch order."""
    return hashlib.sha256(chain + b"".join(rows)).digest()

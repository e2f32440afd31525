"""Random choices that are the same on every machine and for every version of Python and numpy.

The bits come from numpy's Philox counter generator, whose raw output numpy keeps stable; everything above
the bits (ranges, samples, shuffles) is written here, because those methods do change between versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")

_BUFFER = 64  # raw numbers fetched at once: about what one row of the stream needs


def digest(*parts: object) -> int:
    """A 64-bit number from the text of `parts` (8 bytes of BLAKE2b, little-endian)."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def held_out(modulus: int, *key: object) -> bool:
    """Whether `key` belongs to the test: one key in `modulus` does, for ever."""
    return digest("split", *key) % modulus == 0


class Draws:
    """An endless sequence of choices that depends on `purpose` alone.

    Args:
        purpose: What the choices are for: a name and numbers, such as `("train", 0, 1, 17)`. Different
            purposes give unrelated sequences.
    """

    __slots__ = ("_bits", "_buffer")

    def __init__(self, *purpose: object) -> None:
        self._bits = np.random.Philox(key=digest("draws", *purpose))
        self._buffer: list[int] = []

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1. The bias towards small ones is below `limit` / 2^30."""
        if not self._buffer:
            # 30 bits of each: such numbers are Python's fastest
            self._buffer = (self._bits.random_raw(_BUFFER) >> np.uint64(34)).tolist()
        return self._buffer.pop() % limit

    def among(self, choices: Sequence[Choice]) -> Choice:
        """One of `choices`."""
        return choices[self.below(len(choices))]

    def sample(self, choices: Sequence[Choice], count: int) -> list[Choice]:
        """`count` of `choices` in random order, each position at most once."""
        pool = list(choices)
        for position in range(count):
            other = position + self.below(len(pool) - position)
            pool[position], pool[other] = pool[other], pool[position]
        return pool[:count]

    def shuffled(self, choices: Sequence[Choice]) -> list[Choice]:
        """All of `choices` in random order."""
        return self.sample(choices, len(choices))

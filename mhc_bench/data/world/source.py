"""The world as a source of tokens for training."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from mhc_bench.config.schema import WorldConfig
from mhc_bench.data.world.lexicon import vocabulary
from mhc_bench.data.world.stream import Stream
from mhc_bench.data.world.tokenizer import tokenizer_digest, word_tokenizer

_PROBE_ROWS = 64  # rows that go into the fingerprint


class WorldSource:
    """Rows of one world's stream; a row is written when it is asked for.

    Args:
        config: Which world, how large, and how many tokens of validation.

    Raises:
        UsageError: a size that no world has.
    """

    def __init__(self, config: WorldConfig) -> None:
        self._stream = Stream(config.world_seed, config.scale)
        self._validation_tokens = config.validation_tokens
        self._validation_split = config.validation_split
        self._words = vocabulary(config.scale)
        self.tokenizer = word_tokenizer(config.scale)
        self.vocabulary = len(self._words)
        self.identity = {
            "source": f"world seed {config.world_seed} scale {config.scale}",
            "fingerprint": self._fingerprint(),
            "tokenizer": tokenizer_digest(config.scale),
        }

    def train_row(self, seed: int, index: int, length: int) -> npt.NDArray[np.int64]:
        """Row `index` of the stream of `seed`: a pure function of its arguments, int64 `[length]`."""
        return self._stream.row(length, "train", seed, index)

    def validation_rows(self, length: int) -> npt.NDArray[np.int64]:
        """The validation set, int64 `[R, length]`: fresh training documents, the same for every run.

        R x (length - 1) targets are the configured number of tokens, rounded up to whole rows.
        """
        count = -(-self._validation_tokens // (length - 1))
        return np.stack([self._stream.row(length, self._validation_split, index) for index in range(count)])

    def validation_bytes_per_token(self, length: int) -> float:
        """UTF-8 bytes of the targets' text per target of `validation_rows(length)`, one blank per word."""
        sizes = np.array([len(word.encode()) + 1 for word in self._words])
        return float(sizes[self.validation_rows(length)[:, 1:]].mean())

    def _fingerprint(self) -> str:
        """SHA-256 over the words and the beginning of a stream that nobody trains on."""
        content = hashlib.sha256("\n".join(self._words).encode())
        for index in range(_PROBE_ROWS):
            content.update(self._stream.row(256, "fingerprint", index).astype("<i8").tobytes())
        return content.hexdigest()

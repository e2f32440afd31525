"""What training and evaluation ask of a source of tokens, whatever lies behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Row = npt.NDArray[np.int64]
"""Token ids of one sequence, `[length]`; training uses length = T + 1 (inputs and shifted targets)."""


class TokenSource(Protocol):
    """Training rows by index, and one fixed validation set."""

    tokenizer: PreTrainedTokenizerFast
    vocabulary: int
    identity: dict[str, str]
    """`source`, `fingerprint` of the content, `tokenizer` (SHA-256 of its file)."""

    def train_row(self, seed: int, index: int, length: int) -> Row:
        """Row `index` of the stream of `seed`: a pure function of its arguments, `[length]`."""
        ...

    def validation_rows(self, length: int) -> npt.NDArray[np.int64]:
        """The validation set, `[R, length]`: the same for every run."""
        ...

    def validation_bytes_per_token(self, length: int) -> float:
        """UTF-8 bytes of the decoded targets per target token of `validation_rows(length)`."""
        ...

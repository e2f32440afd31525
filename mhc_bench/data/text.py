"""Real text as a token source: documents packed with `<eos>` between them, rows drawn by permutation."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mhc_bench.config.schema import TextConfig, TokenizerConfig
from mhc_bench.data.files import STDLIB, Document, fingerprint, read_documents, split
from mhc_bench.data.source import Row
from mhc_bench.data.tokenizer import BYTES, EOS, PAD, train_byte_level
from mhc_bench.data.windows import count_windows, training_start, validation_starts
from mhc_bench.files import atomic_path, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOCK = 64
"""Documents that are tokenised at once."""


class TextSource:
    """A `TokenSource` over local files; tokenizer and tokens are cached by content."""

    def __init__(self, config: TextConfig, cache_dir: Path) -> None:
        """Read, split and tokenise.

        Raises:
            UsageError: for a missing path, no text, or a vocabulary below the byte alphabet.
        """
        from transformers import PreTrainedTokenizerFast

        documents = read_documents(config.path, config.suffixes)
        train, validation = split(documents, config.validation_fraction)
        content = fingerprint(config.path, documents)
        form = (content, config.validation_fraction, config.tokenizer.kind, config.tokenizer.vocabulary)
        folder = cache_dir / "text" / hashlib.sha256(repr(form).encode()).hexdigest()[:20]
        self._backend = _cached_tokenizer(folder / "tokenizer.json", train, config.tokenizer)
        self._train = _cached_tokens(folder / "train.npy", train, self._backend)
        self._validation = _cached_tokens(folder / "validation.npy", validation, self._backend)
        self._validation_tokens = config.validation_tokens
        self._validation_split = config.validation_split
        self.tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=self._backend, eos_token=EOS, bos_token=EOS, pad_token=PAD
        )
        self.vocabulary = self._backend.get_vocab_size()
        self.identity = {
            "source": _source_name(config.path),
            "fingerprint": content,
            "tokenizer": hashlib.sha256(self._backend.to_str().encode()).hexdigest(),
        }

    def train_row(self, seed: int, index: int, length: int) -> Row:
        """Row `index`: every window of the training tokens once per epoch, in an order of (seed, epoch)."""
        start = training_start(seed, index, length, count_windows(len(self._train), length, "training"))
        row: Row = self._train[start : start + length].astype(np.int64)
        return row

    def validation_rows(self, length: int) -> npt.NDArray[np.int64]:
        """Windows of the validation tokens, about `validation_tokens` in all, `[R, length]`."""
        starts = validation_starts(
            len(self._validation), length, self._validation_tokens, self._validation_split
        )
        rows: npt.NDArray[np.int64] = self._validation[starts[:, None] + np.arange(length)].astype(np.int64)
        return rows

    def validation_bytes_per_token(self, length: int) -> float:
        """Bytes of the targets per target; `<eos>` is a token of no bytes."""
        sizes = np.zeros(self.vocabulary, dtype=np.int64)
        for token, number in self._backend.get_vocab().items():
            # in the byte-level alphabet one character stands for one byte
            sizes[number] = 0 if token in (PAD, EOS) else len(token)
        return float(sizes[self.validation_rows(length)[:, 1:]].mean())


def _source_name(path: str) -> str:
    return f"{STDLIB} of Python {platform.python_version()}" if path == STDLIB else Path(path).name


def _cached_tokenizer(path: Path, train: list[Document], config: TokenizerConfig) -> Tokenizer:
    from tokenizers import Tokenizer

    if not path.exists():
        size = BYTES + 2 if config.kind == "bytes" else config.vocabulary
        write_text(path, train_byte_level((document.text for document in train), size).to_str())
    return Tokenizer.from_file(str(path))


def _cached_tokens(path: Path, documents: list[Document], tokenizer: Tokenizer) -> npt.NDArray[np.int32]:
    def compute() -> npt.NDArray[np.int32]:
        return np.concatenate(list(_encoded(documents, tokenizer)))

    return _cached_array(path, compute)


def _cached_array(path: Path, compute: Callable[[], npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    try:
        stored: npt.NDArray[np.int32] = np.load(path, allow_pickle=False)
        return stored
    except (OSError, ValueError, EOFError):
        tokens = compute()
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, tokens)
    return tokens


def _encoded(documents: list[Document], tokenizer: Tokenizer) -> Iterator[npt.NDArray[np.int32]]:
    end = tokenizer.token_to_id(EOS)
    tokenizer.encode_special_tokens = True  # "<eos>" inside a document is text
    for start in range(0, len(documents), BLOCK):
        texts = [document.text for document in documents[start : start + BLOCK]]
        for encoding in tokenizer.encode_batch_fast(texts):
            yield np.array([end, *encoding.ids], dtype=np.int32)

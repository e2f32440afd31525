"""Tokenizers: byte-level ones trained on the spot, and published ones from their `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mhc_bench.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
BYTES = 256
FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"


def train_byte_level(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens; with the smallest size, one token per byte.

    Raises:
        UsageError: a size below the 256 bytes, `<pad>` and `<eos>`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if size < BYTES + 2:
        raise UsageError(f"data.tokenizer.vocabulary is {size}: expected at least {BYTES + 2}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    # truncation, padding and file order aside, the JSON is what identifies a tokenizer
    return Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()), sort_keys=True))


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as a file's text, with the names of its special tokens."""

    text: str
    separator: str
    """The token between documents, which also ends and starts sequences."""
    pad: str

    @classmethod
    def of(cls, tokenizer: Tokenizer, settings: dict[str, Any], separator: str, name: str) -> TokenizerFile:
        """A published tokenizer, with the special tokens of its `tokenizer_config.json`.

        Raises:
            UsageError: when it has no such separator.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        between = separator or _token(settings.get("eos_token"))
        if tokenizer.token_to_id(between) is None:
            missing = f"no token {between!r}" if between else "no end-of-sequence token"
            raise UsageError(f"tokenizer {name!r} has {missing}: name one with data.separator=TOKEN")
        pad = _token(settings.get("pad_token"))
        return cls(tokenizer.to_str(), between, between if tokenizer.token_to_id(pad) is None else pad)

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def backend(self) -> Tokenizer:
        """The tokenizer; names of special tokens inside a text stay text."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.text)
        tokenizer.encode_special_tokens = True
        return tokenizer

    def size(self) -> int:
        """The largest token id and one."""
        return int(max(self.backend().get_vocab().values())) + 1

    def separator_id(self) -> int:
        """The id of the separator."""
        number = self.backend().token_to_id(self.separator)
        assert number is not None
        return int(number)

    def fast(self) -> PreTrainedTokenizerFast:
        """The tokenizer that is saved with a model."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=self.backend(),
            eos_token=self.separator,
            bos_token=self.separator,
            pad_token=self.pad,
            clean_up_tokenization_spaces=False,
        )


def trained_tokenizer(texts: Iterable[str], size: int) -> TokenizerFile:
    """A tokenizer of the suite's own, trained on `texts`."""
    return TokenizerFile(train_byte_level(texts, size).to_str(), EOS, PAD)


def _token(entry: object) -> str:
    """The content of a special token, which stands there as text or as a mapping."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else ""


def local_tokenizer(path: Path, separator: str) -> TokenizerFile:
    """The tokenizer of a `tokenizer.json`, or of the folder that holds one.

    Raises:
        UsageError: when it cannot be read as one.
    """
    from tokenizers import Tokenizer

    file = path / FILE if path.is_dir() else path
    beside = file.parent / SETTINGS_FILE
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        settings = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {"eos_token": EOS}
    except Exception as error:  # the Rust parser raises Exception itself
        raise UsageError(
            f"data.tokenizer {str(path)!r} is no {FILE}: {' '.join(str(error).split())}"
        ) from error
    return TokenizerFile.of(tokenizer, settings, separator, path.name)


def token_bytes(tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> npt.NDArray[np.int64] | None:
    """UTF-8 bytes of each token, `[vocabulary]`; None where tokens do not stand for bytes.

    In the byte-level alphabet one character of a token stands for one byte. Special tokens have none.
    """
    form = json.loads(tokenizer.backend_tokenizer.to_str())
    if "ByteLevel" not in json.dumps(form.get("decoder")):
        return None
    sizes = np.zeros(vocabulary, dtype=np.int64)
    for token, number in tokenizer.get_vocab().items():
        sizes[number] = len(token)
    for added in form.get("added_tokens", []):
        sizes[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    return sizes

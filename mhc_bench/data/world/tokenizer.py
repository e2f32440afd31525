"""A word-level tokenizer with a fixed list of words: one token per word between blanks."""

from __future__ import annotations

import hashlib
from functools import cache

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from mhc_bench.data.world.lexicon import EOS, PAD, vocabulary


def _tokenizer(scale: int) -> Tokenizer:
    # no unknown token: a word that is not of this world is an error, not a silent hole
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary(scale))}))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def word_tokenizer(scale: int = 1) -> PreTrainedTokenizerFast:
    """The tokenizer of all worlds of one size; `<eos>` opens every document and is also the start token."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_tokenizer(scale),
        bos_token=EOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


@cache
def tokenizer_digest(scale: int = 1) -> str:
    """SHA-256 of the content of the tokenizer's file."""
    return hashlib.sha256(word_tokenizer(scale).backend_tokenizer.to_str().encode()).hexdigest()

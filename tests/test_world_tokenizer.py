"""The word-level tokenizer: what it reads is what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from mhc_bench.config.schema import WorldConfig
from mhc_bench.data.world import FAMILIES, WorldSource, items, vocabulary, word_tokenizer

TOKENIZER = word_tokenizer()


def test_text_and_ids_agree_with_the_source_s_own_ids() -> None:
    source = WorldSource(WorldConfig(world_seed=5))
    for index in range(50):
        row = source.train_row(0, index, 129)
        text = " ".join(vocabulary()[token] for token in row)
        assert np.array_equal(TOKENIZER(text)["input_ids"], row)
        assert TOKENIZER.decode(row) == text


def test_nothing_is_added_or_tidied_away() -> None:
    text = "<eos> brackets [ < ( ) > next ] . ask 9 , how many ? answer 4 - 1 = 3 ; total 3 ."
    ids = TOKENIZER(text)["input_ids"]
    assert len(ids) == len(text.split())
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text.removeprefix("<eos> ")


def test_an_unknown_word_is_an_error_not_a_hole() -> None:
    with pytest.raises(Exception, match="UNK"):
        TOKENIZER("question job of somebody ? answer")


def test_special_tokens_have_the_first_ids() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.bos_token_id) == (0, 1, 1)
    assert len(TOKENIZER) == TOKENIZER.vocab_size == len(vocabulary())


@pytest.mark.parametrize("name", FAMILIES)
def test_context_and_answer_are_cut_where_they_are_joined(name: str) -> None:
    for item in items(name, 3)[:100]:
        for text in item.choices or (item.gold,):
            whole = TOKENIZER(f"{item.context} {text}")["input_ids"]
            assert whole == TOKENIZER(item.context)["input_ids"] + TOKENIZER(f" {text}")["input_ids"]


def test_a_saved_tokenizer_is_loaded_as_it_was(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<eos> question job of " + items("trivia", 3)[0].key + " ? answer ."
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)

"""Training and test never share a key; checked by a reader that knows nothing of the generator."""

from __future__ import annotations

from collections import Counter

import pytest
from world_oracle import documents, is_test_key, key_of

from mhc_bench.data.world import FAMILIES, items, shots

WORLD = 3
SHOTS = {"trivia": 5, "mmlu": 5, "bbh": 3, "drop": 3, "hella": 4, "math": 4, "gsm": 2}


def test_no_training_document_has_a_test_key() -> None:
    asked = {(name, item.key) for name in FAMILIES for item in items(name, WORLD)}
    seen = Counter[str]()
    for words in documents(WORLD, 0, rows=400, length=1024):
        found = key_of(words)
        if found is not None:
            seen[found[0]] += 1
            assert not is_test_key(found[0], WORLD, found[1]), words
            assert found not in asked, words
    assert set(seen) == set(FAMILIES)
    assert min(seen.values()) > 500


@pytest.mark.parametrize("name", FAMILIES)
def test_every_test_item_has_a_held_out_key(name: str) -> None:
    for item in items(name, WORLD):
        assert key_of(item.context.split()[1:]) == (name, item.key)
        assert is_test_key(name, WORLD, item.key)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_split_differs_between_worlds(name: str) -> None:
    assert {item.key for item in items(name, WORLD)} != {item.key for item in items(name, WORLD + 1)}


def test_no_question_is_ever_asked_about_a_held_out_person_but_biographies_are_written() -> None:
    asked = {item.key for item in items("trivia", WORLD)}
    told = {word for words in documents(WORLD, 0, 1000) if key_of(words) is None for word in words}
    assert asked <= told


@pytest.mark.parametrize("name", SHOTS)
def test_worked_examples_have_training_keys(name: str) -> None:
    for text in shots(name, WORLD, SHOTS[name]):
        found = key_of(text.split())
        assert found is not None
        assert found[0] == name
        assert not is_test_key(name, WORLD, found[1])

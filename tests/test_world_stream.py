"""The stream of the world: a pure function of its seeds, the same on every machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from world_oracle import documents, key_of

from mhc_bench.config.schema import WorldConfig
from mhc_bench.data import open_source
from mhc_bench.data.world import WorldSource, vocabulary
from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.stream import SHARES
from mhc_bench.errors import UsageError

SOURCE = WorldSource(WorldConfig(world_seed=5, validation_tokens=1000))

DIGEST = """
import hashlib
from mhc_bench.config.schema import WorldConfig
from mhc_bench.data.world import WorldSource
source = WorldSource(WorldConfig(world_seed=5))
rows = b"".join(source.train_row(3, index, 65).astype("<i8").tobytes() for index in range(40))
print(hashlib.sha256(rows).hexdigest())
"""
GOLDEN = "ec9ecf8252a2c50b71d522ba3f4e63c40f7e3fc7cb27d1ad2c798537bc8b0dd4"


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_stream_is_the_same_bytes_in_every_process(hash_seed: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == GOLDEN


def test_rows_do_not_depend_on_what_was_read_before() -> None:
    forwards = [SOURCE.train_row(1, index, 65) for index in range(6)]
    other = WorldSource(WorldConfig(world_seed=5))
    backwards = [other.train_row(1, index, 65) for index in reversed(range(6))][::-1]
    assert all(np.array_equal(one, two) for one, two in zip(forwards, backwards, strict=True))


def test_a_shorter_row_is_the_beginning_of_a_longer_one() -> None:
    long = SOURCE.train_row(0, 9, 300)
    assert long.dtype == np.int64
    assert long.shape == (300,)
    for length in (1, 64, 129):
        assert np.array_equal(SOURCE.train_row(0, 9, length), long[:length])


def test_seeds_indices_and_worlds_give_different_rows() -> None:
    rows = [SOURCE.train_row(seed, index, 129).tobytes() for seed in range(4) for index in range(50)]
    rows += [row.tobytes() for row in SOURCE.validation_rows(129)]
    rows += [WorldSource(WorldConfig(world_seed=6)).train_row(0, index, 129).tobytes() for index in range(50)]
    assert len(set(rows)) == len(rows)


def test_rows_begin_with_a_document_and_hold_known_tokens_only() -> None:
    rows = np.stack([SOURCE.train_row(0, index, 129) for index in range(300)])
    words = vocabulary()
    assert {words[token] for token in rows[:, 0]} == {"<eos>"}
    assert rows.min() == words.index("<eos>")
    assert rows.max() < SOURCE.vocabulary == len(words)


def test_every_document_ends_with_a_full_stop() -> None:
    assert all(words[-1] == "." for words in documents(5, 0, rows=20))


def test_families_take_their_shares_of_the_tokens() -> None:
    tokens = Counter[str]()
    for words in documents(5, 1, rows=80, length=4096):
        found = key_of(words)
        aside = "echo" if words[0] == "repeat" else "bio"
        tokens[found[0] if found else aside] += 1 + len(words)
    total = sum(SHARES.values())
    for kind, share in SHARES.items():
        assert tokens[kind] / tokens.total() == pytest.approx(share / total, rel=0.1), kind


def test_validation_is_one_fixed_set_of_the_asked_size() -> None:
    rows = SOURCE.validation_rows(65)
    assert rows.shape == (16, 65)  # 16 x 64 targets are the first whole rows past 1000 tokens
    again = WorldSource(WorldConfig(world_seed=5, validation_tokens=1000)).validation_rows(65)
    assert np.array_equal(rows, again)


def test_bytes_per_token_is_that_of_the_decoded_targets() -> None:
    rows = SOURCE.validation_rows(65)
    text = "".join(SOURCE.tokenizer.decode(row[1:]) + " " for row in rows)
    assert SOURCE.validation_bytes_per_token(65) == pytest.approx(len(text.encode()) / rows[:, 1:].size)


def test_identity_tells_worlds_and_sizes_apart() -> None:
    same = WorldSource(WorldConfig(world_seed=5)).identity
    assert same == SOURCE.identity
    assert WorldSource(WorldConfig(world_seed=6)).identity["fingerprint"] != same["fingerprint"]
    larger = WorldSource(WorldConfig(world_seed=5, scale=2))
    assert larger.identity["tokenizer"] != same["tokenizer"]
    assert larger.vocabulary > SOURCE.vocabulary
    file = SOURCE.tokenizer.backend_tokenizer.to_str().encode()
    assert same["tokenizer"] == hashlib.sha256(file).hexdigest()


def test_the_world_opens_through_its_configuration() -> None:
    source = open_source(WorldConfig(world_seed=5))
    assert np.array_equal(source.train_row(0, 0, 20), SOURCE.train_row(0, 0, 20))


def test_a_world_of_no_size_is_refused() -> None:
    with pytest.raises(UsageError, match="scale"):
        WorldSource(WorldConfig(scale=0))


def test_draws_are_even_and_samples_do_not_repeat() -> None:
    draws = Draws("test", 1)
    counts = Counter(draws.below(7) for _ in range(14_000))
    assert set(counts) == set(range(7))
    assert all(abs(count - 2000) < 200 for count in counts.values())
    firsts = Counter()
    for _ in range(6000):
        sample = draws.sample("abcdef", 3)
        assert len(set(sample)) == 3
        firsts[sample[2]] += 1
    assert all(abs(count - 1000) < 150 for count in firsts.values())

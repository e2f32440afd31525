"""Token shards as a source: the same tokens as encoding the text directly, and nothing damaged is read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from forked import in_child
from shard_factory import config, prepared, texts, write_source
from tiny_runs import tiny_run

from mhc_bench.config import ShardsConfig, protocol_id
from mhc_bench.data import open_source
from mhc_bench.data.manifest import Manifest, verify
from mhc_bench.data.module import TokenData
from mhc_bench.data.order import permutation
from mhc_bench.data.shards import ShardSource
from mhc_bench.errors import RunError, UsageError
from mhc_bench.training import fit

EOS = 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardsConfig, Manifest, Path]:
    folder = tmp_path_factory.mktemp("shards")
    return (*prepared(write_source(folder / "source"), folder / "out"), folder / "out")


@pytest.fixture
def copy(made: tuple[ShardsConfig, Manifest, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[2], tmp_path / "copy"))


def at(folder: Path, made: tuple[ShardsConfig, Manifest, Path]) -> ShardsConfig:
    return config(Path(made[0].source), folder)


def directly() -> tuple[list[int], list[int]]:
    """Training and validation tokens of the documents, one byte a token, without any of the shipped code."""
    alphabet = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in alphabet]
    # GPT-2's byte alphabet: printable bytes stand for themselves, the others for code points from 256 on
    points = {byte: byte for byte in alphabet} | {byte: 256 + k for k, byte in enumerate(rest)}
    ids = {byte: 2 + rank for rank, byte in enumerate(sorted(range(256), key=lambda b: points[b]))}
    sides: tuple[list[int], list[int]] = ([], [])
    for text in texts():
        if text:
            kept = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64 < 0.1
            sides[kept].extend([EOS, *(ids[byte] for byte in text.encode())])
    return sides


def test_rows_are_windows_of_the_directly_encoded_documents(
    made: tuple[ShardsConfig, Manifest, Path],
) -> None:
    source = open_source(made[0])
    train, validation = directly()
    size = (len(train) - 1) // 16
    assert len(made[1].of("train")) >= 3
    order = permutation(7, 0, size)
    for index in range(size):
        start = 16 * order[index]
        assert source.train_row(7, index, 17).tolist() == train[start : start + 17]
    rows = source.validation_rows(17)
    assert rows.dtype == np.int64 and rows.shape == (8, 17)
    assert rows.tolist() == [validation[16 * k : 16 * k + 17] for k in range(8)]
    assert source.vocabulary == 258 and source.tokenizer.eos_token_id == EOS


def test_the_order_is_a_function_of_seed_and_index_alone(made: tuple[ShardsConfig, Manifest, Path]) -> None:
    one, other = open_source(made[0]), open_source(made[0])
    size = (made[1].tokens("train") - 1) // 16
    wanted = [0, size + 3, 5, size, 1]
    asked_in_order = {index: one.train_row(3, index, 17).tolist() for index in sorted(wanted)}
    other.train_row(4, 0, 17)
    assert {index: other.train_row(3, index, 17).tolist() for index in wanted} == asked_in_order
    assert one.train_row(4, 0, 17).tolist() != asked_in_order[0]


def test_a_source_travels_to_another_process_without_its_tokens(
    made: tuple[ShardsConfig, Manifest, Path],
) -> None:
    source = open_source(made[0])
    expected = source.train_row(0, 2, 17)
    assert isinstance(source, ShardSource)
    stream = pickle.dumps(source._train)
    assert len(stream) < 2000
    assert (pickle.loads(stream).read(0, 5) == source._train.read(0, 5)).all()
    assert (pickle.loads(pickle.dumps(source)).train_row(0, 2, 17) == expected).all()


def test_a_resumed_loader_goes_on_at_the_exact_next_sequence(
    made: tuple[ShardsConfig, Manifest, Path],
) -> None:
    run = tiny_run(Path(), steps=6, data=made[0])

    def batches(step: int, rank: int = 0, world: int = 1) -> list[list[list[int]]]:
        module = TokenData(run, open_source(run.data))
        module.trainer = SimpleNamespace(world_size=world, global_rank=rank, global_step=step)  # type: ignore
        return [batch["ids"].tolist() for batch in module.train_dataloader()]

    whole = batches(0)
    assert batches(4) == whole[4:]
    halves = zip(batches(4, 0, 2), batches(4, 1, 2), strict=True)
    assert [first + second for first, second in halves] == whole[4:]


def test_bytes_per_token_counts_the_text_without_separators(
    made: tuple[ShardsConfig, Manifest, Path],
) -> None:
    targets = open_source(made[0]).validation_rows(17)[:, 1:]
    expected = float((targets != EOS).mean())
    assert open_source(made[0]).validation_bytes_per_token(17) == pytest.approx(expected)


def test_a_truncated_shard_is_refused_by_name(made: tuple[ShardsConfig, Manifest, Path], copy: Path) -> None:
    shard = copy / "train-00001.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(RunError, match=r"train-00001\.bin .* is truncated"):
        open_source(at(copy, made))
    shard.unlink()
    with pytest.raises(RunError, match=r"train-00001\.bin .* is missing"):
        open_source(at(copy, made))


def test_an_altered_shard_of_the_right_size_is_refused_by_name(
    made: tuple[ShardsConfig, Manifest, Path], copy: Path
) -> None:
    open_source(at(copy, made))
    shard = copy / "validation-00000.bin"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(RunError, match=r"validation-00000\.bin .* is altered"):
        open_source(at(copy, made))


def test_a_shard_is_hashed_once_until_it_changes_or_a_full_check_is_asked_for(
    made: tuple[ShardsConfig, Manifest, Path], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(copy, made[1])
    hashed: list[str] = []
    digest = "mhc_bench.data.manifest.file_digest"
    hashes = {shard.name: shard.sha256 for shard in made[1].shards}
    monkeypatch.setattr(digest, lambda path: hashed.append(path.name) or hashes[path.name])
    verify(copy, made[1])
    assert hashed == []
    os.utime(copy / "train-00000.bin", (1, 1))
    verify(copy, made[1])
    assert hashed == ["train-00000.bin"]
    verify(copy, made[1], again=True)
    assert sorted(hashed[1:]) == sorted(hashes)


def test_an_altered_tokenizer_or_manifest_is_refused(
    made: tuple[ShardsConfig, Manifest, Path], copy: Path
) -> None:
    with (copy / "tokenizer.json").open("a") as handle:
        handle.write(" ")
    with pytest.raises(RunError, match=r"tokenizer\.json is missing or altered"):
        open_source(at(copy, made))
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(RunError, match="format 99"):
        open_source(at(copy, made))
    (copy / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        open_source(at(copy, made))


@pytest.mark.parametrize(
    ("field", "value"),
    [("vocabulary", 259), ("tokenizer", "bpe:300"), ("revision", "main"), ("split", "test")],
)
def test_shards_of_something_else_are_refused(
    made: tuple[ShardsConfig, Manifest, Path], field: str, value: object
) -> None:
    with pytest.raises(UsageError, match=f"data.{field}"):
        open_source(config(Path(made[0].source), made[2], **{field: value}))


def test_shards_open_where_their_source_is_not(made: tuple[ShardsConfig, Manifest, Path]) -> None:
    elsewhere = config(Path("some/other/place/source"), made[2])
    assert open_source(elsewhere).identity == open_source(made[0]).identity


def test_data_that_is_not_prepared_names_the_command(tmp_path: Path) -> None:
    from mhc_bench.config import load_data

    with pytest.raises(UsageError, match="run: mhc-bench prepare fineweb-edu"):
        open_source(load_data("fineweb-edu"), tmp_path)
    with pytest.raises(UsageError, match="run: mhc-bench prepare DATA"):
        open_source(config(tmp_path), tmp_path)


def test_where_the_shards_lie_is_no_part_of_the_protocol(
    made: tuple[ShardsConfig, Manifest, Path], tmp_path: Path
) -> None:
    here, there = (tiny_run(Path(), data=config(tmp_path, path)) for path in ("/a", "/b"))
    assert protocol_id(here) == protocol_id(there)
    assert protocol_id(tiny_run(Path(), data=config(tmp_path, vocabulary=300))) != protocol_id(here)


def test_a_run_over_shards_that_is_interrupted_ends_with_the_same_stream_and_weights(
    made: tuple[ShardsConfig, Manifest, Path], tmp_path: Path
) -> None:
    run = tiny_run(Path(), "mhc", steps=3, data=made[0], logging__checkpoint_every=1)
    whole = fit(run, tmp_path / "whole")
    assert whole.status == "complete"
    assert whole.data_identity["fingerprint"] == made[1].fingerprint

    def die_in_the_third_step() -> None:
        from mhc_bench.training import module

        def stop(*_: object) -> None:
            os._exit(9)

        original, calls = module.ResidualTraining.training_step, iter(range(99))
        module.ResidualTraining.training_step = (  # type: ignore[method-assign]
            lambda self, *args: stop() if next(calls) == 2 else original(self, *args)
        )
        fit(run, tmp_path / "broken")

    in_child(die_in_the_third_step)
    again = fit(run, tmp_path / "broken")
    assert again.restarts == 1
    assert again.token_stream_digest == whole.token_stream_digest
    assert again.weight_digest == whole.weight_digest

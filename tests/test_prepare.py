"""Preparing token shards: the same files from any number of processes and after any interruption."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_factory import config, prepared, texts, write_source

from mhc_bench import cli
from mhc_bench.config import TextConfig, TokenizerConfig, load_data
from mhc_bench.data import encoding, open_source, preparing
from mhc_bench.data.files import read_documents
from mhc_bench.data.manifest import read_manifest
from mhc_bench.data.preparing import prepare
from mhc_bench.data.text import TextSource
from mhc_bench.data.tokenizer import train_byte_level
from mhc_bench.errors import RunError, UsageError
from mhc_bench.suite import prepare as command

OWN = {".lock", "verified.json"}
"""Files about the state of one folder, not about its content."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("prepare") / "source")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in OWN}


def test_one_process_and_three_write_the_same_files(source: Path, tmp_path: Path) -> None:
    prepared(source, tmp_path / "one")
    prepared(source, tmp_path / "three", processes=3)
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert {"manifest.json", "tokenizer.json", "train-00002.bin"} <= set(content(tmp_path / "one"))


def test_the_manifest_says_what_there_is(source: Path, tmp_path: Path) -> None:
    _, manifest = prepared(source, tmp_path / "out")
    kept = [text for text in texts() if text]
    assert read_manifest(tmp_path / "out" / "manifest.json") == manifest
    assert (manifest.documents, manifest.consumed) == (len(kept), len(texts()))
    assert manifest.text_bytes == sum(len(text.encode()) for text in kept)
    assert manifest.tokens("train") + manifest.tokens("validation") == manifest.text_bytes + len(kept)
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    assert manifest.dtype.itemsize == 2 and manifest.dtype.str == "<u2"


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_an_interrupted_preparation_goes_on_and_ends_with_the_same_files(
    blocks: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(source, tmp_path / "whole")
    encode = encoding.Encoding._encode
    calls: list[int] = []

    def breaking(*arguments: object) -> encoding.Block:
        calls.append(len(calls))
        if len(calls) > blocks:
            raise KeyboardInterrupt
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(encoding.Encoding, "_encode", breaking)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "broken")
    assert not (tmp_path / "broken" / "manifest.json").exists()
    with pytest.raises(UsageError, match="prepared in part"):
        open_source(config(source, tmp_path / "broken"))
    calls.clear()
    monkeypatch.setattr(encoding.Encoding, "_encode", lambda *a: calls.append(0) or encode(*a))
    prepared(source, tmp_path / "broken")
    assert content(tmp_path / "broken") == content(tmp_path / "whole")
    assert len(calls) == 3 - blocks  # what is whole is not encoded again


def test_preparing_again_checks_the_shards_and_notices_another_source(source: Path, tmp_path: Path) -> None:
    own = write_source(tmp_path / "source")
    made, manifest = prepared(own, tmp_path / "out")
    assert prepare(made, tmp_path / "out", processes=1, shard_tokens=4000) == manifest
    (own / "c.jsonl").write_text('{"text": "one more"}\n')
    with pytest.raises(UsageError, match="has changed since"):
        prepare(made, tmp_path / "out", processes=1, shard_tokens=4000)


def test_a_trained_tokenizer_sees_training_documents_only(source: Path, tmp_path: Path) -> None:
    made, _ = prepared(source, tmp_path / "out", tokenizer="bpe:300", vocabulary=300)
    kept = [text for text in texts() if text and not encoding.validates(text, 0.1)]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == train_byte_level(kept, 300).to_str()
    shards = open_source(made)
    table = {number: token for token, number in shards.tokenizer.get_vocab().items()}
    targets = shards.validation_rows(17)[:, 1:]
    sizes = [0 if token < 2 else len(table[token]) for token in targets.ravel().tolist()]
    assert shards.validation_bytes_per_token(17) == pytest.approx(sum(sizes) / targets.size)


def test_a_tokenizer_file_gives_its_own_ids_and_may_be_smaller_than_the_vocabulary(
    source: Path, tmp_path: Path
) -> None:
    tokenizer = train_byte_level(["some text to learn from"] * 9, 270)
    folder = tmp_path / "published"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<eos>"}}))
    made, manifest = prepared(source, tmp_path / "out", tokenizer=str(folder), vocabulary=70_000)
    shards = open_source(made)
    assert (shards.vocabulary, manifest.dtype.str) == (70_000, "<u4")
    first = next(text for text in texts() if text and not encoding.validates(text, 0.1))
    ids = [1, *tokenizer.encode(first).ids]
    written = (tmp_path / "out" / "train-00000.bin").read_bytes()
    assert [int.from_bytes(written[4 * k : 4 * k + 4], "little") for k in range(len(ids))] == ids


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocabulary": 257}, "data.vocabulary is 257: expected 258"),
        ({"vocabulary": 300}, "data.vocabulary is 300: expected 258"),
        ({"tokenizer": "bpe:9", "vocabulary": 9}, "at least 258"),
        ({"tokenizer": "bpe:many"}, "expected bpe:<vocabulary>"),
        ({"tokenizer": "not a/name/"}, "a name on the Hub"),
        ({"tokenizer": "bpe:9000", "vocabulary": 9000}, "data.vocabulary is 9000: expected"),
        ({"separator": "<s>"}, "has its own"),
        ({"text_field": "body"}, "no JSON object with a field 'body'"),
        ({"suffixes": [".csv"]}, r"holds no text: expected files ending in \.csv"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_one_line(
    changes: dict[str, object], words: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        prepared(source, tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_the_separator_is_refused(source: Path, tmp_path: Path) -> None:
    train_byte_level([], 258).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match=r"has no token '<s>': name one with data\.separator"):
        prepared(source, tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"), separator="<s>")


def test_too_little_text_for_validation_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a single document")
    with pytest.raises(RunError, match="1 documents, none for validation"):
        prepared(tmp_path / "one.txt", tmp_path / "out", validation_fraction=1e-9)


def test_parquet_gives_the_same_shards_and_documents_as_lines(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    rows: list[str | None] = [text or None for text in texts()]
    for name, part in (("a", rows[:300]), ("b", rows[300:])):
        pq.write_table(pa.table({"n": list(range(len(part))), "body": part}), folder / f"{name}.parquet")
    _, expected = prepared(source, tmp_path / "one")
    _, manifest = prepared(folder, tmp_path / "two", text_field="body")
    assert manifest.shards == expected.shards
    with pytest.raises(UsageError, match="has no column 'text': expected one of n, body"):
        prepared(folder, tmp_path / "three")


def test_a_null_is_an_empty_text_and_half_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": null}\n\n{"text": "one"}\n')
    assert [d.text for d in read_documents(str(path), [])] == ["one"]
    path.write_text('{"text": "fine \\ud83d\\ude00"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(UsageError, match=r"line 2 of 'lines\.jsonl' holds half of a character"):
        read_documents(str(path), [])


def test_the_text_source_reads_parquet(tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    pq.write_table(pa.table({"text": [f"document {n} of several" for n in range(40)]}), path)
    documents = read_documents(str(path), [".txt"])
    assert [d.text for d in documents] == [f"document {n} of several" for n in range(40)]
    data = TextConfig(path=str(path), validation_fraction=0.2, tokenizer=TokenizerConfig(kind="bytes"))
    assert TextSource(data, tmp_path / "cache").train_row(0, 0, 9).shape == (9,)
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(UsageError, match="not readable as Parquet"):
        read_documents(str(path), [".txt"])


def test_without_a_network_the_missing_and_its_commands_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    started = time.monotonic()
    with pytest.raises(RunError) as caught:
        prepare(load_data("fineweb-edu"), tmp_path / "out", processes=1, shard_tokens=4000)
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert "load_dataset('HuggingFaceFW/fineweb-edu', 'sample-10BT', split='train', revision=" in message
    assert "hf download deepseek-ai/DeepSeek-V3 tokenizer.json tokenizer_config.json" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_an_unreachable_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unreachable(_: object, name: str, **__: object) -> None:
        asked.append(name)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("mhc_bench.data.hub.offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(RunError, match="no route to host"):
        prepare(load_data("fineweb-edu"), tmp_path / "out", processes=1, shard_tokens=4000)
    assert asked == ["HuggingFaceFW/fineweb-edu", "deepseek-ai/DeepSeek-V3"]


def test_a_published_data_set_is_streamed_at_its_commit_and_resumed_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhc_bench.data.hub.offline", lambda: False)
    asked: list[tuple[object, ...]] = []
    commits = iter(["commit one", "commit two", "commit two"])

    class Stream(list[dict[str, str]]):
        def skip(self, count: int) -> Stream:
            return Stream(self[count:])

    def load(name: str, subset: str, *, split: str, revision: str, streaming: bool) -> Stream:
        asked.append((name, subset, split, revision, streaming))
        return Stream({"text": text} for text in texts())

    class Info:
        def __init__(self) -> None:
            self.sha = next(commits)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: Info())
    monkeypatch.setattr("datasets.load_dataset", load)
    _, local = prepared(source, tmp_path / "local")
    made = config(Path("owner/name"), tmp_path / "out", subset="small")
    monkeypatch.setattr(preparing, "_require_both_parts", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(made, tmp_path / "out", processes=1, shard_tokens=4000)
    monkeypatch.undo()
    monkeypatch.setattr("mhc_bench.data.hub.offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: Info())
    monkeypatch.setattr("datasets.load_dataset", load)
    manifest = prepare(made, tmp_path / "out", processes=1, shard_tokens=4000)
    assert manifest.shards == local.shards
    assert (manifest.source, manifest.revision) == ("owner/name/small", "commit one")
    assert asked == [("owner/name", "small", "train", "commit one", True)] * 2
    assert open_source(made).identity["source"] == "owner/name/small train at commit one"


def test_a_tokenizer_in_the_hub_cache_is_used_without_a_network(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--model"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    train_byte_level([], 258).save(str(snapshot / "tokenizer.json"))
    (snapshot / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    _, expected = prepared(source, tmp_path / "one")
    _, manifest = prepared(source, tmp_path / "two", tokenizer="owner/model")
    assert manifest.shards == expected.shards


def test_as_many_processes_tokenise_as_there_are_cores_for_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def prepared(*_: object, processes: int, **__: object) -> None:
        asked.append(processes)
        raise UsageError("enough")

    monkeypatch.setattr(command, "prepare", prepared)
    monkeypatch.setattr(command, "available_cores", lambda: 3)
    assert cli.main(["prepare", "fineweb-edu"]) == 2
    assert asked == [3]


def test_the_command_prints_tokens_a_second_then_that_all_is_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.yaml"
    file.write_text(f"kind: shards\nsource: {source}\ntokenizer: bytes\nvocabulary: 258\n")
    words = ["prepare", str(file), "validation_fraction=0.1", "--processes", "1"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert re.search(r"training and [\d,]+ validation tokens of 692 documents in 2 shards", printed)
    assert re.search(r"[\d,]+ tokens/s", printed)
    assert cli.main(words) == 0
    assert "already prepared" in capsys.readouterr().out
    assert open_source(load_data(str(file), ["validation_fraction=0.1"])).vocabulary == 258
    assert cli.main([*words[:3], "--processes", "0"]) == 2

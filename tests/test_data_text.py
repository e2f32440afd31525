"""The text source: what is read, how it is split, and that its rows depend on nothing but their arguments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mhc_bench.config.schema import TextConfig, TokenizerConfig
from mhc_bench.data import open_source
from mhc_bench.data.files import read_documents, split
from mhc_bench.data.order import mix, permutation
from mhc_bench.data.text import TextSource
from mhc_bench.errors import UsageError

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "deep").mkdir(parents=True)
    for number in range(30):
        text = "\n".join(f"{number} {word} {number * place}" for place, word in enumerate(WORDS * 4))
        (root / ("deep" if number % 2 else ".") / f"file{number}.txt").write_text(text)
    return root


def source(path: Path | str, cache: Path, **changes: object) -> TextSource:
    config = TextConfig(path=str(path), validation_tokens=256, validation_fraction=0.2)
    for name, value in changes.items():
        setattr(config, name, value)
    return TextSource(config, cache)


def bpe(size: int) -> TokenizerConfig:
    return TokenizerConfig(kind="bpe", vocabulary=size)


def test_a_row_is_the_same_from_a_fresh_source_and_from_the_cache(folder: Path, tmp_path: Path) -> None:
    first = source(folder, tmp_path / "a", tokenizer=bpe(300))
    again = source(folder, tmp_path / "a", tokenizer=bpe(300))
    other = source(folder, tmp_path / "b", tokenizer=bpe(300))
    for index in (5, 0, 999, 3):
        row = first.train_row(7, index, 17)
        assert row.dtype == np.int64 and row.shape == (17,)
        assert (row == again.train_row(7, index, 17)).all() and (row == other.train_row(7, index, 17)).all()
    assert first.identity == again.identity == other.identity


def test_an_epoch_shows_every_window_once_and_the_next_in_another_order(folder: Path, tmp_path: Path) -> None:
    text = source(folder, tmp_path, tokenizer=bpe(300))
    size = (len(text._train) - 1) // 16
    windows = {text._train[16 * place : 16 * place + 17].tobytes() for place in range(size)}
    epochs = [[text.train_row(0, e * size + i, 17) for i in range(size)] for e in range(2)]
    for rows in epochs:
        assert {row.astype(np.int32).tobytes() for row in rows} == windows
    assert any((a != b).any() for a, b in zip(*epochs, strict=True))
    assert any((text.train_row(1, i, 17) != epochs[0][i]).any() for i in range(size))


def test_training_and_validation_share_no_document(folder: Path) -> None:
    train, validation = split(read_documents(str(folder), [".txt"]), 0.2)
    assert len(train) + len(validation) == 30 and 2 <= len(validation) <= 12
    assert not {d.name for d in train} & {d.name for d in validation}


def test_a_file_keeps_its_side_when_others_come(folder: Path) -> None:
    before = {d.name for d in split(read_documents(str(folder), [".txt"]), 0.2)[1][1:]}
    (folder / "new.txt").write_text("something new\n" * 20)
    after = {d.name for d in split(read_documents(str(folder), [".txt"]), 0.2)[1]}
    assert len(before - after) <= 1


def test_a_lone_file_is_cut_near_its_end(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("line of text\n" * 400)
    train, validation = split(read_documents(str(tmp_path / "one.txt"), [".txt"]), 0.1)
    assert train[0].text + validation[0].text == "line of text\n" * 400
    assert 0.08 < len(validation[0].text) / (400 * 13) < 0.12


def test_bytes_per_token_counts_the_decoded_targets(folder: Path, tmp_path: Path) -> None:
    (folder / "unicode.txt").write_text("naïve 中文 ✓\n" * 50)
    text = source(folder, tmp_path, tokenizer=bpe(400))
    targets = text.validation_rows(33)[:, 1:]
    kept = [[token for token in row if token != text.tokenizer.eos_token_id] for row in targets]
    # tokens of one character may be torn apart over two rows, so compare against the bytes of each token
    table = {v: k for k, v in text.tokenizer.get_vocab().items()}
    expected = sum(len(table[token]) for row in kept for token in row)
    assert text.validation_bytes_per_token(33) == pytest.approx(expected / targets.size)


def test_the_byte_tokenizer_has_one_token_per_byte_and_round_trips(folder: Path, tmp_path: Path) -> None:
    text = source(folder, tmp_path, tokenizer=TokenizerConfig(kind="bytes"))
    sample = "héllo\t世界\n"
    ids = text.tokenizer(sample)["input_ids"]
    assert text.vocabulary == 258 and len(ids) == len(sample.encode())
    assert text.tokenizer.decode(ids) == sample
    assert text.validation_bytes_per_token(33) == pytest.approx(1.0, abs=0.05)


def test_the_name_of_a_special_token_inside_a_document_stays_text(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for number in range(4):
        (tmp_path / "c" / f"{number}.txt").write_text(f"{number} before <eos> after <pad>\n" * 30)
    text = source(tmp_path / "c", tmp_path, tokenizer=TokenizerConfig(kind="bytes"))
    ends = int((text._train == text.tokenizer.eos_token_id).sum())
    assert ends == len(split(read_documents(str(tmp_path / "c"), [".txt"]), 0.2)[0])


def test_jsonl_lines_are_documents(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {number}", "other": 1}) for number in range(5)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n")
    documents = read_documents(str(tmp_path / "data.jsonl"), [".jsonl"])
    assert [d.text for d in documents] == [f"document {number}" for number in range(5)]


def test_the_standard_library_is_read_without_tests_and_installed_packages() -> None:
    names = {d.name for d in read_documents("stdlib", [".txt"])}
    assert {"argparse.py", "json/decoder.py"} <= names
    assert not [
        name for name in names if "site-packages" in name or name.startswith(("test/", "_sysconfigdata"))
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "did you mean 'corpus'"), ("", "holds no text"), ("too short", "expected at least 65")],
)
def test_missing_or_empty_data_is_refused_in_one_line(
    tmp_path: Path, content: str | None, words: str
) -> None:
    (tmp_path / "corpus").mkdir()
    path = tmp_path / ("corpus" if content is not None else "corpsu")
    if content is not None:
        (path / "a.txt").write_text(content)
    with pytest.raises(UsageError, match=words) as caught:
        source(path, tmp_path / "cache", tokenizer=TokenizerConfig(kind="bytes")).train_row(0, 0, 65)
    assert "\n" not in str(caught.value)


def test_a_truncated_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    expected = source(folder, tmp_path, tokenizer=bpe(300)).train_row(0, 0, 17)
    (cached,) = tmp_path.rglob("train.npy")
    cached.write_bytes(cached.read_bytes()[:200])
    assert (source(folder, tmp_path, tokenizer=bpe(300)).train_row(0, 0, 17) == expected).all()


def test_an_unknown_kind_of_data_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'text'"):
        open_source(TextConfig(kind="txt", path="x"), tmp_path)


def test_the_permutation_is_one_and_does_not_change_between_releases() -> None:
    assert sorted(permutation(3, 1, 50)) == list(range(50))
    # the finaliser's first outputs from state 0, as published with SplitMix64
    assert [mix(0), mix(0x9E3779B97F4A7C15)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert permutation(0, 0, 8).tolist() == [0, 7, 2, 5, 4, 6, 3, 1]
    assert permutation(0, 0, 100).tolist() != permutation(1, 0, 100).tolist()

"""Records of every schema version stay readable, and their published bytes and digests what they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tampering import FIXTURES

from mhc_bench.errors import RunError
from mhc_bench.evidence import read_record, read_records
from mhc_bench.evidence.record import canonical, canonical_json
from mhc_bench.evidence.versions import NEW_IN_2, upgrade
from mhc_bench.provenance import lock_hash

OLD = sorted((FIXTURES / "version-1").rglob("seed*.json"))
NEW = sorted((FIXTURES / "version-2").rglob("seed?.json"))


def lookup(content: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        content = content[step]
    return content


def test_there_are_fixtures_of_every_version() -> None:
    assert [json.loads(path.read_text())["schema_version"] for path in (OLD[0], NEW[0])] == [1, 2]


@pytest.mark.parametrize("path", [*OLD, *NEW], ids=lambda path: "/".join(path.parts[-3:]))
def test_the_digest_of_a_record_is_that_of_its_published_file(path: Path) -> None:
    assert read_record(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.parent.name)
def test_the_upgrade_says_null_where_version_1_did_not_say_and_changes_nothing_else(path: Path) -> None:
    old = json.loads(path.read_text())
    new = read_record(path).model_dump(mode="json")
    for name in NEW_IN_2:
        assert lookup(new, name) == (1 if name[-1] == "protocol_version" else None)
        del lookup(new, name[:-1])[name[-1]]
    assert new.pop("schema_version") == 2 and old.pop("schema_version") == 1
    for task in new["evaluation"]["tasks"].values():
        assert task.pop("revision") is None
    assert new == old


def test_a_record_of_the_newest_version_is_left_alone_by_the_upgrade() -> None:
    content = json.loads(NEW[0].read_text())
    assert upgrade(content) is content
    assert canonical_json(read_record(NEW[0])) == NEW[0].read_text() == canonical(content)


@pytest.mark.parametrize("version", [0, 3, "1", 1.0, True, None, [1]])
def test_an_unknown_version_is_refused_with_the_known_ones(tmp_path: Path, version: object) -> None:
    content = {**json.loads(OLD[0].read_text()), "schema_version": version}
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"schema_version.*expected 1 to 2"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("name", NEW_IN_2, ids=".".join)
def test_a_record_of_version_1_has_no_field_of_version_2(tmp_path: Path, name: tuple[str, ...]) -> None:
    content = json.loads(OLD[0].read_text())
    lookup(content, name[:-1])[name[-1]] = None
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf"{name[-1]}: no field of schema version 1"):
        read_record(tmp_path / "record.json")


def test_a_new_record_says_what_version_2_asks_for() -> None:
    record = read_record(next(path for path in NEW if path.parent.name == "mhc"))
    assert record.numerics is not None and record.numerics.precision == "fp32"
    assert record.started is not None and record.started.variants == ("baseline", "hc", "mhc")
    assert record.tuning is not None and record.tuning.runs is None
    assert record.provenance.lock_hash
    assert record.training is not None and record.training.final_steps == 11
    assert record.evaluation is not None and record.evaluation.items
    assert (record.evaluation.dtype, record.evaluation.batch_size) == ("fp32", 64)


def test_superseded_records_are_left_out_of_tables(tmp_path: Path) -> None:
    old = tmp_path / "seed0.json"
    old.write_bytes(NEW[0].read_bytes())
    content = json.loads(old.read_text())
    content |= {"supersedes": hashlib.sha256(old.read_bytes()).hexdigest(), "note": "corrected"}
    (tmp_path / "seed0-2.json").write_text(canonical(content))
    (record,) = read_records(tmp_path)
    assert record.note == "corrected"


def test_the_lock_hash_names_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    first = lock_hash()
    assert first is not None and len(first) == 64
    real = lock_hash.__wrapped__.__globals__["_version"]
    lock_hash.cache_clear()
    monkeypatch.setitem(
        lock_hash.__wrapped__.__globals__,
        "_version",
        lambda name: "0.0.1" if name == "numpy" else real(name),
    )
    assert lock_hash() not in (None, first)
    lock_hash.cache_clear()

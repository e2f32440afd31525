"""Hostile input ends in a clear refusal: nothing is followed, executed or unpacked without bound."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from tampering import Records, put

from mhc_bench import cli
from mhc_bench.errors import UsageError
from mhc_bench.evidence import strict
from mhc_bench.evidence.items import items_path
from mhc_bench.evidence.verify import intake, verify


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def replaced(records: Records, value: str) -> None:
    """A record whose note is raw JSON text."""
    records.change("hc/seed1", put("note", "MARK"))
    path = records.path("hc/seed1")
    path.write_bytes(path.read_bytes().replace(b'"MARK"', value.encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "NaN is no JSON number"),
        ("-Infinity", "-Infinity is no JSON number"),
        ("1e999", "1e999 is too large"),
        ("9" * 400, "is too large"),
        ("-9223372036854775809", "is too large"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":1,"a":2}', "'a' stands twice"),
        ('"\\ud800"', "half a surrogate"),
        ('"' + "x" * 20_000 + '"', "a text of 20000 characters"),
        ("\ud800", "not UTF-8"),
        ("", "Expecting value"),
    ],
)
def test_json_that_no_record_holds_is_refused(records: Records, value: str, said: str) -> None:
    replaced(records, value)
    (problem, *rest) = [each for each in records.verify().problems if each.check != "seeds"]
    assert problem.check == "json" and said in problem.found and not rest


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf{}", b"[]", b"null", b"{}", b'{"schema_version":true}'])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "seed0.json").write_bytes(data)
    (problem,) = verify([tmp_path]).problems
    assert problem.check in ("json", "schema")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("side_files.../../etc/passwd", "0" * 64),
        ("side_files./etc/passwd", "0" * 64),
        ("identity.variant", "../../hc"),
        ("identity.suite", "<b>smoke</b>"),
        ("identity.variant", "=cmd|' /C calc'!A0"),
    ],
)
def test_paths_and_markup_in_names_are_refused(records: Records, field: str, value: str) -> None:
    parent, _, key = field.partition(".")
    records.change("hc/seed1", lambda content: content[parent].update({key: value}))
    assert "schema" in records.refused_by()


@pytest.mark.parametrize(
    "text", ["<svg onload=x>", "JavaScript:alert(1)", "@SUM(A1)", "-cmd", "\x1b]0;x\x07", "\u202egpj"]
)
def test_harmful_free_text_is_refused(records: Records, text: str) -> None:
    records.change("hc/seed1", put("provenance.platform", text))
    assert records.refused_by() == {"text"}


@pytest.mark.parametrize("text", ["-5 of 3", "a < b", "x <|y|>", "1 - 2 = -1\nline"])
def test_ordinary_text_is_not(records: Records, text: str) -> None:
    records.change("hc/seed1", put("provenance.platform", text))
    assert records.refused_by() == set()


def test_a_special_token_may_separate_documents_and_stand_nowhere_else(records: Records) -> None:
    records.change("hc/seed1", put("configuration.data.separator", "</s>"))
    assert "text" not in records.refused_by()
    records.change("hc/seed1", put("provenance.platform", "<s>"))
    assert "text" in records.refused_by()


def test_linked_files_and_folders_are_refused_and_never_read(records: Records, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    records.folder.rename(outside)
    records.folder.mkdir()
    (records.folder / "hc").symlink_to(outside / "hc")
    (records.folder / "seed0.json").symlink_to(outside / "hc" / "seed0.json")
    report = verify([records.folder])
    assert {problem.found for problem in report.problems} == {"a symbolic link"}
    assert len(report.problems) == 2 and report.records == 0
    assert verify([records.folder / "hc"]).problems[0].found == "a symbolic link"


def test_linked_items_are_refused(records: Records, tmp_path: Path) -> None:
    path = items_path(records.path("hc/seed1"))
    path.rename(tmp_path / "kept.gz")
    path.symlink_to(tmp_path / "kept.gz")
    assert {"file", "item digest"} == records.refused_by()


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "seed0.json")
    (problem,) = verify([tmp_path]).problems
    assert problem.found == "no plain file"


def test_a_file_beyond_its_bound_is_not_parsed(records: Records) -> None:
    with records.path("hc/seed1").open("wb") as handle:
        handle.truncate(2**31)
    assert "file" in records.refused_by()


def test_a_zip_bomb_is_not_unpacked(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhc_bench.evidence.items.LARGEST_UNPACKED", 10_000)
    items_path(records.path("hc/seed1")).write_bytes(gzip.compress(b"0" * 10_000_000))
    found = [problem for problem in records.verify().problems if problem.check == "item file"]
    assert [problem.found for problem in found] == ["unpacks to more than 10000 bytes"]


def test_the_bound_of_unpacking_holds_while_unpacking() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    with pytest.raises(ValueError, match="more than 100"):
        strict.gunzip(bomb, 100)
    assert strict.gunzip(gzip.compress(b"abc"), 3) == b"abc"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(b"{}", mtime=0)[:-4], "cut off"),
        (gzip.compress(b"{}", mtime=0) + b"more", "behind the end"),
        (b"PK\x03\x04", "no gzip"),
        (gzip.compress(b'{"a":NaN}', mtime=0), "NaN"),
        (gzip.compress(b"{}", mtime=0), "schema_version"),
    ],
)
def test_damaged_items_are_refused(records: Records, data: bytes, said: str) -> None:
    items_path(records.path("hc/seed1")).write_bytes(data)
    (found,) = [problem.found for problem in records.verify().problems if problem.check == "item file"]
    assert said in found


def test_reports_hold_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a\x1b[31m\nb"
    folder.mkdir()
    (folder / "seed0.json").write_text('{"\x7f": 1}')
    assert cli.main(["verify", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x7f" not in out
    assert "\\x1b[31m\\n" in out


def test_too_many_files_are_refused(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_FILES", 3)
    with pytest.raises(UsageError, match="more than 3 files"):
        records.verify()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("configuration.model.backbone.num_hidden_layers", 10**9), "1000000000 layers"),
        (put("configuration.data.scale", 10**9), "world of scale"),
        (put("configuration.model.backbone.hidden_size", -5), "hidden_size"),
        (put("configuration.model.backbone", {"auto_map": "x"}), "auto_map"),
        (put("configuration.variant.options.streams", 10**9), "streams 1000000000: expected"),
        (
            put("configuration.variant", {"connection": "kromhc", "options": {"streams": 9007199254740881}}),
            "streams 9007199254740881: expected",
        ),
    ],
)
def test_a_senseless_model_is_refused_without_building_it(
    records: Records, change: object, said: str
) -> None:
    from mhc_bench.suite.verify import count

    configuration = records.read("hc/seed1")
    change(configuration)  # type: ignore[operator]
    with pytest.raises(ValueError, match=said):
        count(configuration["configuration"], 1)


def test_no_module_is_imported_because_a_record_names_it(records: Records) -> None:
    from mhc_bench.evidence.verify import UnavailableError
    from mhc_bench.suite.verify import count

    configuration = records.read("hc/seed1")["configuration"]
    configuration["variant"]["connection"] = "antigravity:Flight"
    with pytest.raises(UnavailableError, match="not registered here"):
        count(configuration, 1)


def test_the_command_says_what_is_wrong_and_how_much(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    records.change("hc/seed1", put("training.tokens", 1))
    assert cli.main(["verify", str(records.path("hc/seed1"))]) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "hc/seed1.json: training summary: found tokens 1; expected" in first
    assert last == "1 record read: 1 problem in 1 file"
    assert cli.main(["verify", "--json", str(records.path("hc/seed1"))]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [problem["check"] for problem in told["problems"]] == ["training summary"]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_nothing_to_check_is_wrong_usage(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main(["verify", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("evaluation.tasks", {}),
        ("optimizer.betas", [0.9, []]),
        ("optimizer.betas", [0.9, {}]),
        ("optimizer.schedule.drops", {"nan": "x"}),
        ("suite", "${oc.env:HOME}"),
        ("model.family", "???"),
    ],
)
def test_a_senseless_configuration_is_refused(records: Records, field: str, value: object) -> None:
    records.change("hc/seed1", put(f"configuration.{field}", value))
    assert "protocol id" in records.refused_by()

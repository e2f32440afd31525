"""`mhc-bench reproduce`: the same bits are found the same, a tampered record is not, and no run is lost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tampering import FIXTURES, Content, put
from tiny_runs import tiny_run, write_corpus

from mhc_bench import cli
from mhc_bench.config import RunConfig, run_folder, save_run_config
from mhc_bench.errors import RunError
from mhc_bench.evidence import load_board, read_record
from mhc_bench.evidence.compare import compare_results, judge
from mhc_bench.evidence.export import to_json
from mhc_bench.evidence.leaderboard import Contents, page
from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.reproduction import Difference, parse_reproduction, reproduction_schema
from mhc_bench.evidence.tables import runs
from mhc_bench.evidence.verify import verify
from mhc_bench.suite import reproduce as module
from mhc_bench.suite.worker import complete_run

RERUN = module.rerun


def test_differences_are_shown_as_the_records_say_them(capsys: pytest.CaptureFixture[str]) -> None:
    row = Difference(what="platform [/x]", recorded="Linux [red]", here="Linux [a]")
    module._print_table(Console(width=200), "Differences", (row,))
    assert "platform [/x]  Linux [red]  Linux [a]" in capsys.readouterr().out


def in_process(runs: list[RunConfig], root: Path, *rest: object) -> dict[str, object]:
    """What the runner does in a process of its own, without the price of another import of torch."""
    for run in runs:
        complete_run(run, run_folder(root, run))
    return {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a tiny run, as it is published."""
    root = tmp_path_factory.mktemp("reproduce")
    run = tiny_run(write_corpus(root / "corpus"), "hc")
    folder = run_folder(root / "runs", run)
    save_run_config(run, folder)
    complete_run(run, folder)
    target = run_folder(root / "records", run).with_suffix(".json")
    target.parent.mkdir(parents=True)
    shutil.copyfile(folder / "record.json", target)
    return target


@pytest.fixture
def published(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the record in a folder of its own; its repetition is the trained run itself."""
    original = read_record(trained)
    monkeypatch.setattr(module, "rerun", lambda *rest: original)
    folder = tmp_path / "records" / trained.parent.parent.name
    shutil.copytree(trained.parent.parent, folder)
    return folder / "hc" / "seed0.json"


@pytest.fixture
def really_run(published: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, run again in earnest."""
    monkeypatch.setattr(module, "rerun", RERUN)
    monkeypatch.setattr(module, "run_missing", in_process)
    return published


def tampered(path: Path, seed: int, loss: float) -> None:
    """Another published seed, or this one, with a last validation loss of its maker's choice."""
    content: Content = json.loads(path.read_text())
    for field in ("identity.seed", "configuration.seed"):
        put(field, seed)(content)
    put("training.validation.-1.loss", loss)(content)
    path.with_name(f"seed{seed}.json").write_text(canonical(content))


def outcome(path: Path, tmp_path: Path, *more: str) -> tuple[int, Any]:
    out = tmp_path / "again"
    code = cli.main(["reproduce", str(path), "--out", str(out), *more])
    return code, parse_reproduction((out / "reproduction.json").read_bytes())


def test_the_same_machine_and_lock_give_the_same_bits_in_a_process_of_its_own(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "rerun", RERUN)
    code, told = outcome(published, tmp_path, "--by", "A reader")
    assert (code, told.verdict, told.differences, told.by) == (0, "identical bits", (), "A reader")
    (again,) = (tmp_path / "again").rglob("record.json")
    assert again.with_name("log.txt").is_file()  # where a process writes what it says
    assert told.record == read_record(published).digest
    assert told.repetition == read_record(again).digest != told.record
    assert {row.what for row in told.environment} <= {"commit", "uncommitted changes"}
    assert "same to the last bit" in capsys.readouterr().out
    shutil.copyfile(
        tmp_path / "again" / "reproduction.json", published.with_name("seed0.reproduction-1.json")
    )
    report = verify([published.parents[2]])
    assert report.problems == ()
    assert any(note.text == "reproduced by A reader: identical bits" for note in report.notes)


def test_the_runs_table_says_who_reproduced_a_record(published: Path, tmp_path: Path) -> None:
    by = "A <b>reader</b> | of *it*"
    for number, name in enumerate((by, ""), start=1):
        outcome(published, tmp_path / str(number), "--by", name)
        made = tmp_path / str(number) / "again" / "reproduction.json"
        made.rename(published.with_name(f"seed0.reproduction-{number}.json"))
    board = load_board(published.parents[1])
    (row,) = [row for arm in board.arms for row in runs(arm).rows]
    assert row[-1] == f"{by}: identical bits; unnamed: identical bits"
    assert "A &lt;b&gt;reader&lt;/b&gt; \\| of \\*it\\*: identical bits" in page(Contents(board))
    (arm,) = json.loads(to_json(board))["arms"]
    assert arm["runs"][0]["reproductions"][1] == {"by": "", "verdict": "identical bits"}


def test_a_damaged_reproduction_is_named(published: Path) -> None:
    published.with_name("seed0.reproduction-1.json").write_text("{}")
    with pytest.raises(RunError, match=r"seed0\.reproduction-1\.json: not a valid reproduction"):
        load_board(published.parents[1])


def test_a_repetition_that_was_made_already_is_compared_and_not_run(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "rerun", None)
    content = json.loads(published.read_text())
    put("note", "made elsewhere")(content)
    put("provenance.packages.torch", "1.0")(content)
    (tmp_path / "other.json").write_text(canonical(content))
    code, told = outcome(published, tmp_path, "--repetition", str(tmp_path / "other.json"))
    assert (code, told.verdict) == (0, "identical bits")
    assert [row.what for row in told.environment] == ["package torch"]
    assert told.repetition == read_record(tmp_path / "other.json").digest


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("identity.seed", 5, "another run: seed 5"),
        ("note", "", "is no repetition"),
        (None, None, "no such record"),
    ],
)
def test_what_is_no_repetition_is_refused(
    published: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    field: str | None,
    value: object,
    said: str,
) -> None:
    other = tmp_path / "other.json"
    if field is not None:
        content = json.loads(published.read_text())
        put(field, value)(content)
        other.write_text(canonical(content))
    words = ["reproduce", str(published), "--repetition", str(other), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = FIXTURES.parents[2] / "results" / "schema-reproduction.json"
    assert committed.read_text(encoding="utf-8") == reproduction_schema()


def test_a_record_is_run_again_with_the_operations_that_it_was_made_with(published: Path) -> None:
    record = read_record(published)
    assert record.numerics is not None
    other = record.numerics.model_copy(update={"operations": "reference"})
    for numerics, expected in ((record.numerics, "eager"), (other, "reference"), (None, "eager")):
        told = record.model_copy(update={"numerics": numerics})
        assert module.runnable(told, published).hardware.operations == expected


def test_a_tampered_loss_lies_outside_the_seeds_interval(really_run: Path, tmp_path: Path) -> None:
    for seed, loss in enumerate((1.0, 1.01, 1.02)):
        tampered(really_run, seed, loss)
    code, told = outcome(really_run, tmp_path)
    assert (code, told.verdict) == (1, "outside interval")
    assert [row.what for row in told.differences] == ["validation loss at step 6"]
    low, high = told.interval
    assert low < 1.0 < 1.02 < high < 1.1


def test_another_loss_within_the_seeds_is_inside(published: Path, tmp_path: Path) -> None:
    loss = read_record(published).validation_loss
    assert loss is not None
    for seed, shift in ((1, 0.2), (2, -0.2), (0, 0.05)):
        tampered(published, seed, loss + shift)
    code, told = outcome(published, tmp_path)
    assert (code, told.verdict) == (0, "inside interval")


def test_without_other_seeds_nothing_is_claimed(published: Path, tmp_path: Path) -> None:
    tampered(published, 0, 1.0)
    code, told = outcome(published, tmp_path)
    assert (code, told.verdict, told.interval) == (1, "no interval", None)


def test_what_differs_here_is_listed_before_the_run(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(published.read_text())
    put("provenance.packages.torch", "1.0")(content)
    put("numerics.cpu_capability", "ABACUS")(content)
    published.write_text(canonical(content))
    code, told = outcome(published, tmp_path)
    assert code == 0
    assert {"package torch", "cpu_capability"} <= {row.what for row in told.environment}
    assert capsys.readouterr().out.index("ABACUS") >= 0


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("identity.protocol_version", 0, "protocol version 0"),
        ("configuration.optimizer.learning_rate", 0.5, "protocol id"),
        ("configuration.optimizer.surprise", 0.5, "unknown key"),
    ],
)
def test_a_record_that_cannot_be_run_again_is_refused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object, said: str
) -> None:
    content = json.loads(published.read_text())
    put(field, value)(content)
    published.write_text(canonical(content))
    assert cli.main(["reproduce", str(published), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_record_and_a_folder_in_use_are_refused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", str(tmp_path / "seed5.json")]) == 2
    assert cli.main(["reproduce", str(published), "--out", str(published.parent)]) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err


def test_a_run_that_ends_otherwise_is_outside_whatever_its_loss(published: Path) -> None:
    record = read_record(published)
    diverged = record.model_copy(update={"status": "diverged"})
    differences = compare_results(record, diverged)
    assert [row.what for row in differences] == ["status"]
    assert judge(record, diverged, differences, (0.0, 100.0)) == "outside interval"


def test_every_part_of_the_result_is_compared(published: Path) -> None:
    record = read_record(published)
    content = record.model_dump(mode="json")
    for field in (
        "digests.weights",
        "digests.token_stream",
        "digests.shared_weights",
        "data.fingerprint",
    ):
        put(field, "0" * 64)(content)
    put("training.initial_loss", 1.5)(content)
    put("mechanism.curves.loss.values.0", 1.5)(content)
    put("mechanism.probes.identity_distance.max", 1.5)(content)
    other = type(record).model_validate_json(json.dumps(content))
    assert {row.what for row in compare_results(record, other)} == {
        "final weights",
        "token stream",
        "shared weights at step 0",
        "data fingerprint",
        "initial_loss",
        "curve of loss",
        "identity_distance max",
    }


def test_a_failed_repetition_is_an_error_of_one_line(
    really_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclasses.dataclass
    class State:
        detail: str = "out of memory"

    monkeypatch.setattr(module, "run_missing", lambda *rest: {"hc seed 0": State()})
    assert cli.main(["reproduce", str(really_run), "--out", str(tmp_path / "out")]) == 1
    assert "failed: out of memory" in capsys.readouterr().err

"""A run that fails leaves a record; a later one replaces it, and nothing published is written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest
from tampering import put
from tiny_runs import tiny_run, write_corpus

from mhc_bench import cli
from mhc_bench.config import RunConfig, run_folder, save_run_config
from mhc_bench.errors import RunError, StoppedError, UsageError
from mhc_bench.evidence import read_record, read_records
from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.tables import unpaired_notes
from mhc_bench.evidence.verify import verify
from mhc_bench.suite import commands, publishing, worker
from mhc_bench.suite.failures import record_failure, scrubbed
from mhc_bench.suite.publishing import Publication
from mhc_bench.suite.record import ORIGIN_FILE
from mhc_bench.suite.state import RunState, read_state

SAID = "RuntimeError: no memory at (path), object (Thing at 0x1)"


def breaks(*rest: object) -> NoReturn:
    raise RuntimeError("no memory at /home/jo/run.py, object <Thing at 0x1>")


def origin(folder: Path, seeds: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    started = {"seeds": seeds, "variants": ["hc"]}
    (folder / ORIGIN_FILE).write_text(json.dumps({"command": "mhc-bench train tiny", "started": started}))


@pytest.fixture(scope="module")
def attempted(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    """A run that broke twice in the same way, then after its training, and was then finished."""
    root = tmp_path_factory.mktemp("attempts")
    run = tiny_run(write_corpus(root / "corpus"), "hc", training__steps=2, training__validate_every=2)
    folder = run_folder(root / "runs", run)
    origin(folder, [0])
    save_run_config(run, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "train_run", breaks)
        assert [worker.work(folder) for _ in range(2)] == [1, 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "evaluate_run", breaks)
        assert worker.work(folder) == 1
    assert not read_state(folder).finished
    assert worker.work(folder) == 0
    return run, folder


@pytest.fixture
def published(attempted: tuple[RunConfig, Path], tmp_path: Path) -> Path:
    """The published first edition of the run that was attempted."""
    run, folder = attempted
    Publication(tmp_path).add(folder, run)
    return run_folder(tmp_path, run).with_suffix(".json")


def changed(attempted: tuple[RunConfig, Path], place: Path) -> tuple[RunConfig, Path]:
    """The same run as another folder has it, with another note and no failed attempt."""
    run, folder = attempted
    content = json.loads((folder / "record.json").read_text())
    put("supersedes", None)(content)
    put("note", "made again")(content)
    place.mkdir(exist_ok=True)
    (place / "record.json").write_text(canonical(content))
    return run, place


def test_each_way_of_failing_is_one_record_and_the_finished_run_replaces_the_last(
    attempted: tuple[RunConfig, Path],
) -> None:
    paths = publishing.editions(attempted[1])
    assert [path.name for path in paths] == ["record-1.json", "record-2.json", "record.json"]
    first, second, last = map(read_record, paths)
    assert [each.status for each in (first, second, last)] == ["failed", "partial", "complete"]
    assert [each.failure for each in (first, second, last)] == [SAID, SAID, None]
    assert [each.supersedes for each in (first, second, last)] == [None, first.digest, second.digest]
    assert first.training is None and second.training == last.training
    assert {"training.json", "metrics.csv"} <= second.side_files.keys()


def test_the_failed_attempts_are_published_before_the_result_and_stand_every_check(published: Path) -> None:
    names = sorted(path.name for path in published.parent.glob("*.json"))
    assert names == ["seed0-2.json", "seed0-3.json", "seed0.json"]
    assert read_record(published).status == "failed"
    report = verify([published.parents[2]])
    assert (report.records, report.problems) == (3, ())


def test_the_run_folder_stands_every_check_too(attempted: tuple[RunConfig, Path]) -> None:
    assert verify([attempted[1]]).problems == ()


def test_a_failure_that_was_published_is_followed_by_the_rest(
    attempted: tuple[RunConfig, Path], published: Path, tmp_path: Path
) -> None:
    for name in ("seed0-2.json", "seed0-3.json"):
        published.with_name(name).unlink()
    Publication(tmp_path).add(attempted[1], attempted[0])
    assert read_record(published.with_name("seed0-3.json")).status == "complete"


def test_tables_show_the_last_edition_and_say_what_it_replaces(published: Path) -> None:
    (record,) = read_records(published.parents[2])
    assert record.status == "complete"
    (arm,) = collate([record]).arms
    (note,) = unpaired_notes(arm)
    assert note == f"hc seed 0 replaces the record {(record.supersedes or '')[:16]}: an attempt that failed"


def test_a_failed_run_is_a_row_that_takes_the_verdict(attempted: tuple[RunConfig, Path]) -> None:
    failed, _, complete = map(read_record, publishing.editions(attempted[1]))
    baseline = complete.identity.model_copy(update={"variant": "baseline", "connection": "baseline"})
    (arm,) = collate([complete.model_copy(update={"identity": baseline}), failed]).arms
    row = next(row for row in arm.rows if row.variant == "hc")
    from mhc_bench.evidence.quantities import VALIDATION_LOSS

    assert row.unfinished == (0,)
    assert arm.cell(row, VALIDATION_LOSS).verdict == "hc is unfinished in 1 of 1 seeds"
    assert f"hc seed 0 is failed: {SAID}" in unpaired_notes(arm)


def test_a_started_run_without_a_record_is_told(attempted: tuple[RunConfig, Path]) -> None:
    record = read_record(attempted[1] / "record.json")
    assert record.started is not None
    started = record.started.model_copy(update={"seeds": (0, 4), "others": ("mhc/seed1",)})
    (arm,) = collate([record.model_copy(update={"started": started})]).arms
    assert [note for note in unpaired_notes(arm) if "started" in note] == [
        "hc seed 4 was started and has no record",
        "mhc seed 1 was started and has no record",
    ]


def test_runs_started_one_by_one_name_each_other(attempted: tuple[RunConfig, Path]) -> None:
    run, folder = attempted
    other = folder.parents[1] / "mhc" / "seed7"
    origin(other, [7])
    try:
        worker.record_run(run, folder)
        started = read_record(folder / "record.json").started
    finally:
        (other / ORIGIN_FILE).unlink()
        worker.record_run(run, folder)
    assert started is not None and started.others == ("mhc/seed7",)
    assert list(started.runs) == [("hc", 0), ("mhc", 7)]
    again = read_record(folder / "record.json").started
    assert again is not None and again.others == ()


def test_another_record_needs_a_reason_to_replace_a_published_one(
    attempted: tuple[RunConfig, Path], published: Path, tmp_path: Path
) -> None:
    run, folder = changed(attempted, tmp_path / "other")
    before = {path: path.read_bytes() for path in published.parent.iterdir()}
    with pytest.raises(RunError, match=r"records are immutable.*--correction"):
        Publication(tmp_path).add(folder, run)
    assert {path: path.read_bytes() for path in published.parent.iterdir()} == before


def test_a_correction_names_what_it_replaces_and_why_and_is_made_once(
    attempted: tuple[RunConfig, Path], published: Path, tmp_path: Path
) -> None:
    run, folder = changed(attempted, tmp_path / "other")
    for _ in range(2):
        Publication(tmp_path, "the note was wrong, see /home/jo/notes").add(folder, run)
    Publication(tmp_path).add(folder, run)
    assert len(list(published.parent.glob("*.json"))) == 4
    record = read_record(published.with_name("seed0-4.json"))
    assert record.supersedes == read_record(published.with_name("seed0-3.json")).digest
    assert (record.correction, record.note) == ("the note was wrong, see (path)", "made again")
    assert [each.note for each in read_records(published.parents[1])] == ["made again"]
    report = verify([published.parents[1]])
    assert report.problems == ()


def test_a_result_follows_a_failed_attempt_that_was_made_elsewhere_without_a_reason(
    attempted: tuple[RunConfig, Path], published: Path, tmp_path: Path
) -> None:
    run, folder = changed(attempted, tmp_path / "other")
    published.with_name("seed0-3.json").unlink()
    Publication(tmp_path, "not needed here").add(folder, run)
    record = read_record(published.with_name("seed0-3.json"))
    assert (record.status, record.note, record.correction) == ("complete", "made again", None)
    assert verify([published.parents[1]]).problems == ()


def test_a_chain_that_went_on_elsewhere_is_not_forked(
    attempted: tuple[RunConfig, Path], published: Path, tmp_path: Path
) -> None:
    run, other = changed(attempted, tmp_path / "other")
    published.with_name("seed0-3.json").unlink()
    Publication(tmp_path).add(other, run)
    with pytest.raises(RunError, match="records are immutable"):
        Publication(tmp_path).add(attempted[1], run)
    Publication(tmp_path, "the first machine's").add(attempted[1], run)
    assert verify([published.parents[1]]).problems == ()
    assert len(list(published.parent.glob("*.json"))) == 4


def test_a_failed_attempt_elsewhere_leaves_a_published_result_alone(
    attempted: tuple[RunConfig, Path], published: Path, tmp_path: Path
) -> None:
    other = tmp_path / "broken"
    other.mkdir()
    record_failure(attempted[0], other, "broke otherwise")
    Publication(tmp_path, "try").add(other, attempted[0])
    assert len(list(published.parent.glob("*.json"))) == 3


def test_a_correction_without_published_records_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "smoke", "--correction", "because"]) == 2
    assert "--correction needs --records" in capsys.readouterr().err


def test_a_killed_run_gets_its_record_from_the_command_that_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = {
        "hc seed 0": RunState("failed", "killed by signal 9; see /home/jo/log.txt"),
        "mhc seed 0": RunState("interrupted", "told to stop"),
    }
    monkeypatch.setattr(commands, "_compute", lambda *rest: ended)
    words = ["run", "smoke", "variants=[hc,mhc]", "evaluation.tasks=[]", "--runs", str(tmp_path / "runs")]
    assert cli.main([*words, "--records", str(tmp_path / "records")]) == 1
    assert "failed: hc seed 0: killed by signal 9" in capsys.readouterr().out
    (path,) = (tmp_path / "records").rglob("*.json")
    record = read_record(path)
    assert (record.status, record.failure, path.name) == ("failed", "killed by signal 9", "seed0.json")


@pytest.mark.parametrize(
    ("error", "records"), [(RunError("no"), 1), (UsageError("no"), 0), (StoppedError(), 0)]
)
def test_wrong_usage_and_being_told_to_stop_are_no_failure(
    attempted: tuple[RunConfig, Path], tmp_path: Path, error: Exception, records: int
) -> None:
    with pytest.raises(type(error)), worker.recorded(attempted[0], tmp_path / "runs" / "hc" / "seed0"):
        raise error
    assert len(list(tmp_path.rglob("record-1.json"))) == records


def test_a_refused_run_says_why_and_leaves_no_record_of_a_failure(
    attempted: tuple[RunConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise UsageError("no GPU here")

    save_run_config(attempted[0], tmp_path)
    monkeypatch.setattr(worker, "complete_run", refuse)
    assert worker.work(tmp_path) == 2
    state = read_state(tmp_path)
    assert (state.standing, state.detail) == ("failed", "wrong usage: no GPU here")
    monkeypatch.setattr(commands, "_compute", lambda *_: {"hc seed 0": state})
    words = ["run", "smoke", "variants=[hc]", "evaluation.tasks=[]", "--runs", str(tmp_path / "runs")]
    assert cli.main(words) == 1
    assert not list(tmp_path.rglob("record-*.json"))


def test_a_failure_that_cannot_be_recorded_is_told_and_no_more(
    attempted: tuple[RunConfig, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    record_failure(attempted[0], tmp_path / "file" / "hc" / "seed0", "broke")
    assert "the failure has no record" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such file: '/home/jo smith/x.txt'", "No such file: (path)"),
        ("see ~/a and C:\\Users\\jo\\b, ../c/d", "see (path) and (path), (path)"),
        ("GET https://user:secret@host:80/x?y failed", "GET (address) failed"),
        ("token hf_AbCdEf0123456789 is wrong", "token [hidden] is wrong"),
        ("<Thing at 0x1>\n\x1b[31m", "(Thing at 0x1) [31m"),
        ("=SUM(1) and/or 3 / 4 are JavaScript:1", "SUM(1) and/or 3 / 4 are javascript 1"),
        ("-", "no reason was given"),
    ],
)
def test_a_reason_holds_nothing_private_and_nothing_that_acts(text: str, expected: str) -> None:
    assert scrubbed(text) == expected

"""Tables, loggers and progress of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import LoggerConfig
from mhc_bench.errors import UsageError
from mhc_bench.files import PROGRESS_FILE
from mhc_bench.suite.state import JOB_FILE
from mhc_bench.training import TrainingSummary, fit
from mhc_bench.training.history import History
from mhc_bench.training.loggers import logger_class, make_logger
from mhc_bench.training.operations import OPERATIONS_FILE
from mhc_bench.training.progress import RunProgress
from mhc_bench.training.tables import Table


class OwnLogger(CSVLogger):
    """A logger that a suite names by its dotted path."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:google")
def test_tensorboard_and_any_other_logger_get_what_the_table_gets(corpus: Path, tmp_path: Path) -> None:
    loggers = [LoggerConfig("TensorBoardLogger"), LoggerConfig(f"{__name__}.OwnLogger", {"name": "own"})]
    summary = fit(tiny_run(corpus, steps=4, logging__loggers=loggers), tmp_path)
    events = EventAccumulator(str(tmp_path / "logs" / "TensorBoardLogger"))
    events.Reload()
    scalars = {event.step: event.value for event in events.Scalars("validation_loss")}
    assert scalars == {row["step"]: pytest.approx(row["loss"], rel=1e-6) for row in summary.validation}
    assert [event.step for event in events.Scalars("loss")] == [2, 4]
    assert "validation_loss" in (tmp_path / "logs" / "own" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("TensorboardLogger", "did you mean 'TensorBoardLogger'"),
        ("no.such.Logger", "cannot import 'no.such.Logger'"),
        ("pathlib.Path", "is no Lightning logger"),
    ],
)
def test_a_logger_that_is_none_is_refused(path: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        logger_class(path)


def test_an_argument_that_a_logger_does_not_take_is_refused_before_anything_is_written(
    corpus: Path, tmp_path: Path
) -> None:
    wrong = [LoggerConfig("CSVLogger", {"colour": "red"})]
    with pytest.raises(UsageError, match="colour"):
        make_logger(wrong[0], tmp_path)
    with pytest.raises(UsageError, match="colour"):
        fit(tiny_run(corpus, logging__loggers=wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_table_is_cut_back_to_the_step_that_a_run_resumes_from(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with Table(path, ["step", "a"], 0) as table:
        table.write([{"step": 1, "a": 0.5}, {"step": 2}, {"step": 3, "a": 2.0}])
    with path.open("a") as handle:
        handle.write("4")
    with Table(path, ["step", "a"], 2) as table:
        table.write([{"step": 3, "a": 7.0}])
        with pytest.raises(ValueError, match="no column 'b'"):
            table.write([{"step": 4, "b": 1.0}])
    assert path.read_text() == "step,a\n1,0.5\n2,\n3,7\n"


def test_progress_is_written_at_most_once_a_second_and_removed_at_the_end(tmp_path: Path) -> None:
    progress = RunProgress(tmp_path, "baseline seed 0", 10, quiet=True)
    progress.start(0)
    progress.update(1, 3.5, 100.0, 9.0)
    progress.update(2, 3.4, 100.0, 8.0)
    assert json.loads((tmp_path / PROGRESS_FILE).read_text()) == {
        "stage": "train",
        "step": 1,
        "steps": 10,
        "loss": 3.5,
        "tokens_per_second": 100.0,
        "seconds_left": 9.0,
    }
    progress.stop(2)
    assert list(tmp_path.iterdir()) == []


def test_progress_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object) -> None:
        raise AssertionError("a measured step waited for the disk")

    monkeypatch.setattr(os, "fsync", wait)
    progress = RunProgress(tmp_path, "baseline seed 0", 10, quiet=True)
    progress.update(1, 3.5, 100.0, 9.0)
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS_FILE]


def test_what_a_killed_process_left_is_removed_and_a_job_being_noted_is_spared(
    corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / ".metrics.csv.a.tmp").touch()
    (tmp_path / f".{JOB_FILE}.b.tmp").touch()
    fit(tiny_run(corpus, steps=1), tmp_path)
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [f".{JOB_FILE}.b.tmp"]


def test_a_run_shows_its_progress_while_it_trains(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    write = RunProgress.update

    def watched(self: RunProgress, *args: Any) -> None:
        write(self, *args)
        seen.append(json.loads((tmp_path / PROGRESS_FILE).read_text()))

    monkeypatch.setattr(RunProgress, "update", watched)
    fit(tiny_run(corpus, steps=3), tmp_path)
    assert seen[0]["stage"] == "train" and seen[0]["steps"] == 3
    assert not (tmp_path / PROGRESS_FILE).exists()


def test_history_goes_through_a_checkpoint_unchanged() -> None:
    first, second = History(), History()
    first.losses, first.norms, first.seconds = [1.5, 1.25], [0.5, 0.25], [0.1, 0.1]
    first.add_validation(2, 128, {"loss": 1.0})
    first.add_validation(2, 128, {"loss": float("nan")})
    first.add_probes(2, {"gain": 1.0, "other": float("inf")})
    second.restore(first.state())
    assert (second.losses, second.norms, second.validation) == (
        [1.5, 1.25],
        [0.5, 0.25],
        [{"step": 2, "tokens": 128, "loss": 1.0}],
    )
    assert second.probes == {"gain": [(2, 1.0)]} and len(second) == 2
    assert second.elapsed() >= first.state()["elapsed"] - 1.0


def operations_of(summary: TrainingSummary) -> str:
    assert summary.numerics is not None
    return str(summary.numerics["operations"])


def test_the_operations_are_settled_at_the_start_and_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(corpus, "mhc", steps=2)
    assert operations_of(fit(run, tmp_path / "short")) == "eager"
    note = json.loads((tmp_path / "short" / OPERATIONS_FILE).read_text())
    assert note["operations"] == "eager"
    assert "too short to compile for" in note["reason"]
    assert f"operations: eager ({note['reason']})" in capsys.readouterr().err
    # what a run was started with stands, whatever would be chosen now
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / OPERATIONS_FILE).write_text('{"operations": "compiled", "reason": "long enough"}')
    assert operations_of(fit(run, tmp_path / "moved")) == "compiled"
    monkeypatch.setenv("CXX", "no-such-compiler")
    (tmp_path / "moved" / "training.json").unlink()
    with pytest.raises(UsageError, match="no C\\+\\+ compiler here"):
        fit(run, tmp_path / "moved")
    with pytest.raises(UsageError, match="no C\\+\\+ compiler here"):
        fit(tiny_run(corpus, "mhc", steps=2, hardware__operations="compiled"), tmp_path / "asked")
    assert not (tmp_path / "asked").exists()

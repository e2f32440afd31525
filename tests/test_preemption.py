"""A run that is told to stop saves where it is, says so, and ends with the same bits later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist
from forked import in_child, on_ranks
from test_resume import same
from tiny_runs import tiny_run, write_corpus
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mhc_bench.config import RunConfig, save_run_config
from mhc_bench.errors import RunError, StoppedError
from mhc_bench.files import write_json
from mhc_bench.stopping import STOP_SIGNALS, StopNotice, ends_when_told
from mhc_bench.suite import runner, worker
from mhc_bench.training import TrainingSummary, fit, fitting, module
from mhc_bench.training.checkpoints import checkpoint_folders
from mhc_bench.training.launch import launch_ranks
from mhc_bench.training.preemption import Votes

STEPS = 7
STOPPED_AFTER = 3
"""No multiple of the cadences of metrics and checkpoints."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def a_run(corpus: Path, **changes: object) -> RunConfig:
    return tiny_run(corpus, "mhc", steps=STEPS, hardware__rows_per_device=2, **changes)


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSummary, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit(a_run(corpus), folder), folder


def tell(number: signal.Signals) -> Callable[..., None]:
    return lambda *_, **__: os.kill(os.getpid(), number)


def told_in_pass(passes: int, number: signal.Signals) -> None:
    """From here on, this process is sent the signal in the given forward pass (from 0)."""
    target, step = module.ResidualTraining, module.ResidualTraining.training_step
    calls = iter(range(1_000_000))

    def training_step(self: object, *arguments: object) -> object:
        if next(calls) == passes:
            os.kill(os.getpid(), number)
        return step(self, *arguments)  # type: ignore[arg-type]

    target.training_step = training_step  # type: ignore[method-assign, assignment]


def outcome(config: RunConfig, folder: Path) -> str:
    try:
        fit(config, folder)
    except StoppedError as told:
        return str(told)
    return "finished"


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_stopped_run_saves_its_step_and_ends_later_with_the_bits_of_an_undisturbed_one(
    corpus: Path, tmp_path: Path, undisturbed: tuple[TrainingSummary, Path], number: signal.Signals
) -> None:
    def stopped() -> str:
        told_in_pass(2 * STOPPED_AFTER - 2, number)  # two passes to a step: the first of its step
        return outcome(a_run(corpus), tmp_path)

    code, message = in_child(stopped)
    assert code == 0 and message.startswith(f"stopped after step {STOPPED_AFTER} of {STEPS}")
    assert checkpoint_folders(tmp_path)[0].name == f"step-0000000{STOPPED_AFTER}"
    assert not (tmp_path / "training.json").exists()
    same(fit(a_run(corpus), tmp_path), tmp_path, *undisturbed)


def test_a_run_told_in_its_last_step_finishes_its_training_and_still_says_that_it_was_told(
    corpus: Path, tmp_path: Path, undisturbed: tuple[TrainingSummary, Path]
) -> None:
    def stopped() -> str:
        told_in_pass(2 * STEPS - 1, signal.SIGTERM)
        return outcome(a_run(corpus), tmp_path)

    code, message = in_child(stopped)
    assert code == 0 and message.startswith("stopped after training")
    same(fit(a_run(corpus), tmp_path), tmp_path, *undisturbed)


def test_a_run_told_while_it_sets_up_stops_after_its_first_step(corpus: Path, tmp_path: Path) -> None:
    def stopped() -> str:
        count = fitting.count_start
        fitting.count_start = lambda run_dir: (tell(signal.SIGTERM)(), count(run_dir))[1]
        return outcome(a_run(corpus), tmp_path)

    assert in_child(stopped)[1].startswith(f"stopped after step 1 of {STEPS}")


@pytest.mark.ranks
def test_all_ranks_stop_after_the_same_step_when_one_is_told(corpus: Path, tmp_path: Path) -> None:
    config = a_run(corpus, hardware__sharding="fsdp", hardware__devices=2)

    def work(told: bool, folder: Path) -> Callable[[int], object]:
        def run(rank: int) -> object:
            if told and rank == 1:
                told_in_pass(STOPPED_AFTER - 1, signal.SIGUSR1)
            return outcome(config, folder) if told else fit(config, folder)

        return run

    (_, first), (_, second) = on_ranks(work(True, tmp_path / "a"))
    assert first == second and first.startswith(f"stopped after step {STOPPED_AFTER + 1} of {STEPS}")
    (_, resumed), _ = on_ranks(work(False, tmp_path / "a"))
    (_, whole), _ = on_ranks(work(False, tmp_path / "b"))
    same(resumed, tmp_path / "a", whole, tmp_path / "b")


@pytest.mark.ranks
def test_votes_reach_all_ranks_one_call_later() -> None:
    def work(rank: int) -> list[bool]:
        dist.init_process_group("gloo")
        votes = Votes()
        said = [False, False, rank == 1, False, rank == 0, True]
        return [votes.cast(vote) for vote in said]

    for _, heard in on_ranks(work):
        assert heard == [False, False, False, True, False, True]


def test_a_single_rank_hears_its_own_vote_at_once() -> None:
    votes = Votes()
    assert [votes.cast(vote) for vote in (False, True)] == [False, True]


def test_a_worker_told_outside_training_ends_with_the_exit_code_and_leaves_no_failure(
    corpus: Path, tmp_path: Path
) -> None:
    save_run_config(a_run(corpus), tmp_path)
    write_json(tmp_path / "training.json", {"status": "diverged"})

    def stopped() -> None:
        worker.evaluate_run = tell(signal.SIGTERM)  # type: ignore[assignment]
        try:
            worker.work(tmp_path)
        except SystemExit as end:
            os._exit(int(str(end.code)))

    assert in_child(stopped)[0] == 75
    assert not (tmp_path / "failure.txt").exists()


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with ends_when_told(), StopNotice() as notice:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert notice.told
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_on_the_way_out_a_further_signal_does_not_change_the_exit_code() -> None:
    def stopped() -> None:
        try:
            with ends_when_told():
                tell(signal.SIGTERM)()
        except SystemExit as end:
            tell(signal.SIGTERM)()
            os._exit(int(str(end.code)))

    assert in_child(stopped)[0] == 75


def child_failed(code: int) -> ChildFailedError:
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=code, error_file="none")
    return ChildFailedError("ranks", {1: failure})


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (SignalException("told", signal.SIGTERM), StoppedError),
        (child_failed(75), StoppedError),
        (child_failed(1), RunError),
    ],
    ids=["launcher told", "rank told", "rank failed"],
)
def test_ranks_that_were_told_to_stop_have_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[Exception]
) -> None:
    def launch(*_: object) -> None:
        raise raised

    monkeypatch.setattr("mhc_bench.training.launch.elastic_launch", lambda *_: launch)
    with pytest.raises(error) as caught:
        launch_ranks(tiny_run(tmp_path), tmp_path, quiet=True)
    assert type(caught.value) is error


def ended(folder: Path, code: str) -> runner.Job:
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    process.wait()
    return runner.Job(tiny_run(folder), folder, 0, process, time.monotonic())


@pytest.mark.parametrize(
    ("code", "standing"),
    [
        ("raise SystemExit(75)", "interrupted"),
        ("import os; os.kill(os.getpid(), 15)", "interrupted"),
        ("import os; os.kill(os.getpid(), 9)", "failed"),
        ("raise SystemExit(1)", "failed"),
    ],
)
def test_the_suite_tells_a_stopped_run_from_a_failed_one(tmp_path: Path, code: str, standing: str) -> None:
    assert runner._outcome(ended(tmp_path, code)).standing == standing


def test_a_stopped_suite_stops_its_runs_and_waits_for_them(tmp_path: Path) -> None:
    script = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print(flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", f"{script}; time.sleep(60)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline()
    job = runner.Job(tiny_run(tmp_path), tmp_path, 0, process, time.monotonic())
    with pytest.raises(KeyboardInterrupt), runner._stopped_at_the_end([job]):
        raise KeyboardInterrupt
    assert process.returncode == 75
    process.stdout.close()

"""Checkpoints that are written beside the training, and those that stay when it is over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, on_ranks
from safetensors.torch import load_file
from tiny_runs import MachineGoneError, before_update, tiny_run, write_corpus

from mhc_bench.config import RunConfig
from mhc_bench.config.identity import run_id
from mhc_bench.errors import UsageError
from mhc_bench.files import PROGRESS_FILE
from mhc_bench.model.digests import digest
from mhc_bench.suite.worker import train_run
from mhc_bench.training import checkpoints, fit, fitting, module, state
from mhc_bench.training.checkpoints import checkpoint_folders, checkpoint_step, find_damage, keep
from mhc_bench.training.clock import Clock
from mhc_bench.training.validation import Validation


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def shards(folder: Path) -> dict[str, str]:
    """File -> digest of its tensors, which are in any order."""
    return {path.name: digest(sorted(load_file(path).items())) for path in sorted(folder.glob("shard-*"))}


def ended_in_step(
    number: int, config: RunConfig, folder: Path, last: Callable[[], Any] = lambda: None
) -> Any:
    """Train in a process that ends before the update of a step; what `last` returns there."""

    def work() -> Any:
        def stop() -> None:
            raise MachineGoneError(last())

        module.ResidualTraining.configure_gradient_clipping = before_update(number, stop)  # type: ignore
        with pytest.raises(MachineGoneError) as caught:
            fit(config, folder)
        return caught.value.args[0]

    code, found = in_child(work)
    assert code == 0
    return found


def small(corpus: Path, **changes: Any) -> RunConfig:
    quiet = {"training__validate_every": 100, "training__probe_every": 100}
    return tiny_run(corpus, **{"steps": 4, **quiet, **changes})


def test_a_checkpoint_written_beside_the_training_holds_the_step_at_which_it_was_taken(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written two steps later, and seen only when it is whole."""
    beside, between = tmp_path / "beside", tmp_path / "between"
    go_on, write = threading.Event(), state.write_state

    def late(*args: Any) -> None:
        assert go_on.wait(60)
        write(*args)

    def look() -> list[Path]:
        found = checkpoint_folders(beside)
        go_on.set()
        while not checkpoint_folders(beside):
            time.sleep(0.01)
        return found

    every = {"logging__checkpoint_every": 2, "steps": 5}
    ended_in_step(4, small(corpus, **every), between)
    monkeypatch.setattr(state, "write_state", late)
    assert ended_in_step(4, small(corpus, **every, logging__checkpoint_async=True), beside, look) == []
    ((one,), (other,)) = (checkpoint_folders(folder) for folder in (beside, between))
    assert one.name == other.name == "step-00000002" and not find_damage(one, run_id(small(corpus, **every)))
    assert shards(one) == shards(other)


def test_steps_take_more_than_no_time_where_a_checkpoint_waits_for_the_one_before(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is a pause within the pause for the next one."""
    write = state.write_state

    def slowly(*args: Any) -> None:
        time.sleep(0.5)
        write(*args)

    monkeypatch.setattr(state, "write_state", slowly)
    summary = fit(small(corpus, logging__checkpoint_every=1, logging__checkpoint_async=True), tmp_path)
    assert summary.step_seconds["p10"] > 0


def test_a_pause_within_a_pause_is_taken_off_a_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr("mhc_bench.training.clock.time.perf_counter", lambda: next(now))
    clock = Clock()
    clock.begin()  # 0
    with clock.paused():  # 1 to 6
        with clock.paused():
            pass
        with pytest.raises(RuntimeError), clock.paused():
            raise RuntimeError
    with clock.paused():  # 7 to 8
        pass
    assert clock.lap() == 9 - (6 - 1) - (8 - 7)


def test_an_error_of_the_writing_ends_the_run(corpus: Path, tmp_path: Path) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    def work() -> None:
        state.save = full  # type: ignore[assignment]
        with pytest.raises(OSError, match="no space left"):
            fit(small(corpus, logging__checkpoint_async=True), tmp_path)

    assert in_child(work) == (0, None)
    assert not checkpoint_folders(tmp_path) and not (tmp_path / "training.json").exists()


@pytest.mark.ranks
def test_two_ranks_write_beside_the_training_what_they_write_between_its_steps(
    corpus: Path, tmp_path: Path
) -> None:
    def work(rank: int) -> list[str]:
        digests = []
        for folder, beside in ((tmp_path / "a", True), (tmp_path / "b", False)):
            config = small(
                corpus,
                hardware__sharding="fsdp",
                hardware__devices=2,
                logging__milestones=[2],
                logging__checkpoint_async=beside,
            )
            digests.append(fit(config, folder).weight_digest)
        return digests

    (code, first), (other, second) = on_ranks(work)
    assert code == other == 0 and first == second and first[0] == first[1]
    kept = [tmp_path / run / "checkpoints" / "milestone-00000002" for run in "ab"]
    assert shards(kept[0]) == shards(kept[1]) and len(shards(kept[0])) == 2


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


@pytest.fixture
def validation_losses(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, float]]:
    """Step -> loss, to be set."""
    losses: dict[int, float] = {}

    def measure(self: Validation, module: Any) -> dict[str, float]:
        return {"loss": losses[self.clock.step], "perplexity": 1.0, "bits_per_byte": 1.0}

    monkeypatch.setattr(Validation, "measure", measure)
    yield losses


def test_milestones_and_the_best_checkpoint_stay_and_nothing_else(
    corpus: Path, tmp_path: Path, validation_losses: dict[int, float]
) -> None:
    """The best is resumed over: what was better lies before the step at which the run was stopped."""
    # step 3 is validated better than all, but it is no step of a checkpoint
    validation_losses |= dict(zip(range(1, 9), (9.0, 5.0, 1.0, 4.0, 3.5, 6.0, 5.5, 5.0), strict=True))
    config = small(
        corpus,
        steps=8,
        training__validate_every=1,
        logging__keep_best=True,
        logging__milestones=[0.125, 7],
    )
    assert ended_in_step(7, config, tmp_path, lambda: names(tmp_path)) == {
        *("milestone-00000001", "best", "step-00000001", "step-00000004", "step-00000006", "starts.json"),
    }
    fit(config, tmp_path)
    steps = {f"step-0000000{step}" for step in (1, 4, 7)}
    assert names(tmp_path) == {"final", "best", "milestone-00000001", "milestone-00000007"} | steps
    places = {
        link: (tmp_path / "checkpoints" / link).resolve().name for link in ("best", "milestone-00000007")
    }
    assert places == {"best": "step-00000004", "milestone-00000007": "step-00000007"}
    assert not any(find_damage(folder, run_id(config)) for folder in checkpoint_folders(tmp_path))


@pytest.mark.parametrize("step", [4, 6])
def test_a_checkpoint_that_was_written_and_not_yet_named_is_named_by_the_next_start(
    corpus: Path, tmp_path: Path, validation_losses: dict[int, float], step: int
) -> None:
    """Of the last one nothing is left to train: it is loaded, and the run ends."""
    validation_losses |= {2: 5.0, 4: 4.0, 6: 4.5 if step == 4 else 3.0}
    config = small(
        corpus, steps=6, training__validate_every=2, logging__keep_best=True, logging__milestones=[4, 6]
    )

    def work() -> None:
        def die_there(folder: Path, name: str) -> None:
            if checkpoint_step(folder) == step:
                raise MachineGoneError
            keep(folder, name)

        checkpoints.keep = die_there
        with pytest.raises(MachineGoneError):
            fit(config, tmp_path)

    assert in_child(work) == (0, None)
    assert f"step-0000000{step}" in names(tmp_path) and f"milestone-0000000{step}" not in names(tmp_path)
    fit(config, tmp_path)
    assert names(tmp_path) == {
        *("final", "best", "milestone-00000004", "milestone-00000006", "step-00000004", "step-00000006"),
    }
    assert (tmp_path / "checkpoints" / "best").resolve().name == f"step-0000000{step}"


def test_what_a_run_trained_with_is_cleared_away_by_the_next_start_where_it_was_killed_before(
    corpus: Path, tmp_path: Path
) -> None:
    config = small(corpus)

    def work() -> None:
        def die_there(folder: Path) -> None:
            raise MachineGoneError

        fitting.clear_away = die_there
        with pytest.raises(MachineGoneError):
            fit(config, tmp_path)

    assert in_child(work) == (0, None)
    assert {"starts.json", "step-00000004"} < names(tmp_path)
    (tmp_path / PROGRESS_FILE).touch()
    train_run(config, tmp_path)
    assert names(tmp_path) == {"final"} and not (tmp_path / PROGRESS_FILE).exists()


def test_a_better_checkpoint_that_a_resumed_run_has_not_reached_is_forgotten(
    corpus: Path, tmp_path: Path, validation_losses: dict[int, float]
) -> None:
    validation_losses |= {2: 5.0, 4: 4.0, 6: 4.5}
    config = small(corpus, steps=6, training__validate_every=2, logging__keep_best=True)
    ended_in_step(5, config, tmp_path)
    (tmp_path / "checkpoints" / "step-00000004" / state.TRAINER).write_bytes(b"")
    validation_losses[4] = 4.75
    fit(config, tmp_path)
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step-00000006"


@pytest.mark.parametrize("milestone", [0.0, -1.0, 9, 0.01])
def test_a_milestone_outside_the_run_is_refused(corpus: Path, tmp_path: Path, milestone: float) -> None:
    with pytest.raises(UsageError, match=r"logging\.milestones is .*a step from 1 to 8"):
        fit(small(corpus, steps=8, logging__milestones=[milestone]), tmp_path / "run")
    assert not (tmp_path / "run").exists()

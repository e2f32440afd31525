"""Ranks that `fit` starts itself: they train, fail with one line, and do not outlive a killed parent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from forked import KILLED, fork, wait
from tiny_runs import tiny_run, write_corpus

from mhc_bench.errors import RunError
from mhc_bench.training import fit
from mhc_bench.training.checkpoints import checkpoint_folders
from mhc_bench.training.launch import FORWARDED, launch_ranks

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def processes_of(run_dir: Path) -> list[int]:
    """Processes whose command line names the run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(run_dir).encode() in words:
            found.append(int(entry.name))
    return found


def until(condition: object, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_rank_behind_and_finishes_when_it_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path / "cache"))
    run_dir = tmp_path / "run"
    config = tiny_run(
        write_corpus(tmp_path / "corpus"),
        "mhc",
        steps=60,
        hardware__sharding="fsdp",
        hardware__devices=2,
        logging__checkpoint_every=20,
    )
    child = fork(lambda: fit(config, run_dir), tmp_path / "result")
    until(lambda: checkpoint_folders(run_dir))
    assert len(processes_of(run_dir)) == 2
    os.kill(child, signal.SIGKILL)
    assert wait(child) == KILLED
    until(lambda: not processes_of(run_dir), seconds=10)
    assert not (run_dir / "training.json").exists()
    handlers = [signal.getsignal(number) for number in FORWARDED]
    summary = fit(config, run_dir)
    assert [signal.getsignal(number) for number in FORWARDED] == handlers
    assert (summary.status, summary.steps, summary.world_size, summary.restarts) == ("complete", 60, 2, 1)
    assert not processes_of(run_dir)


@pytest.mark.long
def test_a_rank_that_fails_ends_the_run_with_one_line(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, hardware__sharding="fsdp", hardware__devices=2)
    with pytest.raises(RunError, match=r"rank . of baseline seed 0") as caught:
        launch_ranks(config, tmp_path / "nothing here", quiet=True)
    assert "\n" not in str(caught.value) and "config.yaml" in str(caught.value)

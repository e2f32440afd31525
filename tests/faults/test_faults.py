"""Every kind of fault; by default one kill, on a single run without an evaluation."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_suite import SUITE, Ground, comparable, contents, differences
from injected import DAMAGES, die, on_write
from trials import (
    KINDS,
    WORKER_WRITES,
    Trial,
    can_mount,
    damaged,
    disturbed,
    survive,
)

from mhc_bench.training.checkpoints import checkpoint_folders

SHORT = ("variants=[mhc]", "evaluation.tasks=[]")
"""Overrides of the short form: one run without an evaluation."""


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


def undisturbed(root: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    ground = Ground(root, overrides)
    assert ground.run() == 0, ground.output()
    return contents(ground)


def test_a_suite_that_is_killed_in_a_checkpoint_ends_later_with_the_same_bits(tmp_path: Path) -> None:
    short = undisturbed(tmp_path / "undisturbed", SHORT)
    fault: Callable[[Ground], Any] = lambda ground: on_write("worker", ground.runs, 30, die)  # noqa: E731
    ground = Ground(tmp_path / "disturbed", SHORT)
    survive(disturbed("killed", "write 30", fault, {1}), ground, short)
    # what all trials rest on: a difference of one digit or one file is seen
    table = ground.folder("mhc") / "probes.csv"
    table.write_text(table.read_text().replace("0.", "1.", 1))
    (table.parent / ".left.tmp").touch()
    seen = differences(contents(ground), short)
    assert [line.rpartition("/")[2] for line in seen] == [".left.tmp: left over", "probes.csv: differs"]


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_fault_of_every_kind_is_survived(
    tmp_path: Path, expected: dict[str, Any], kind: Callable[[random.Random], Trial]
) -> None:
    if kind.__name__ == "disk_really_full" and not can_mount():
        pytest.skip("mounting a file system takes root")
    survive(kind(random.Random(kind.__name__)), Ground(tmp_path), expected)


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_harmed_checkpoint_is_survived(tmp_path: Path, expected: dict[str, Any], damage: Any) -> None:
    survive(damaged(damage, 5), Ground(tmp_path), expected)


@pytest.mark.faults
@pytest.mark.parametrize("tenth", range(10))
def test_a_kill_at_any_tenth_of_the_writes_is_survived(
    tmp_path: Path, expected: dict[str, Any], tenth: int
) -> None:
    write = tenth * WORKER_WRITES // 10
    fault: Callable[[Ground], Any] = lambda ground: on_write("worker", ground.runs, write, die)  # noqa: E731
    survive(disturbed("killed", f"write {write}", fault, {0, 1}), Ground(tmp_path), expected)


@pytest.mark.faults
@pytest.mark.ranks
def test_a_suite_of_two_ranks_of_which_one_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Real processes, as a person starts them."""
    (tmp_path / "tiny.yaml").write_text(SUITE)
    steps = ["training.steps=60", "logging.checkpoint_every=10", "logging.milestones=[]"]
    words = ["run", str(tmp_path / "tiny.yaml"), "hardware=cpu-fsdp", "variants=[mhc]", *steps, "--runs"]

    def start(place: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "mhc_bench", *words, str(tmp_path / place)])

    disturbed = start("a")
    while not (found := [path for run in tmp_path.glob("a/tiny-*/mhc/seed0") for path in steps_of(run)]):
        assert disturbed.poll() is None
        time.sleep(0.05)
    os.kill(ranks_of(found[0].parents[1])[1], signal.SIGKILL)
    assert disturbed.wait(600) == 1
    assert start("a").wait(600) == 0 and start("b").wait(600) == 0
    (one,), (other,) = (list(tmp_path.glob(f"{place}/tiny-*/mhc/seed0")) for place in "ab")
    for name in ("checkpoints/final/model.safetensors", "probes.csv", "metrics.csv", "items.json.gz"):
        assert comparable(one / name) == comparable(other / name), name


def steps_of(run: Path) -> list[Path]:
    return checkpoint_folders(run)


def ranks_of(folder: Path) -> list[int]:
    """The ranks of a run, by their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mhc_bench.suite.ranks" in words and str(folder).encode() in words:
            found.append(int(entry.name))
    return sorted(found)

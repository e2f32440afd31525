"""Every kind of fault; by default one kill, on a single run without an evaluation."""

from __future__ import annotations

import contextlib
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
from forked_suite import Ground, contents, differences, stamps
from injected import DAMAGES, HARMS, die, on_write
from trials import (
    KINDS,
    MOUNTING,
    WORKER_WRITES,
    NotSurvivedError,
    Trial,
    at_once,
    can_mount,
    damaged,
    disturbed,
    harmed,
    not_one_by_one,
    survive,
)

from mhc_bench.suite import worker
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
    if kind in MOUNTING and not can_mount():
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
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_harmed_final_model_is_survived(tmp_path: Path, expected: dict[str, Any], harm: Any) -> None:
    survive(harmed(harm), Ground(tmp_path), expected)


@pytest.mark.faults
def test_two_workers_that_have_one_run_in_hand_are_noticed(tmp_path: Path) -> None:
    def unlocked(role: str) -> None:
        worker.locked = contextlib.nullcontext  # type: ignore[assignment]

    with pytest.raises(NotSurvivedError, match="begins beside another"):
        at_once(0.0, None, unlocked).bring(Ground(tmp_path))


@pytest.mark.parametrize(
    ("told", "killed", "wrong"),
    [
        (["begins", "ends"], False, False),
        (["begins", "ends"], True, False),
        (["begins", "begins", "ends"], True, False),
        (["begins", "begins", "ends"], False, True),
        (["begins", "ends", "begins", "ends"], False, True),
        (["begins", "ends", "begins", "ends"], True, True),
        (["begins", "begins beside another", "ends"], True, True),
    ],
)
def test_a_run_has_one_worker_at_a_time_and_one_end(told: list[str], killed: bool, wrong: bool) -> None:
    journal = "".join(f"mhc {what}\n" for what in told) + "baseline begins\nbaseline ends\n"
    assert bool(not_one_by_one(journal, killed)) == wrong


STEPS = ["training.steps=60", "logging.checkpoint_every=10", "logging.milestones=[]"]


def two_ranks(ground: Ground) -> subprocess.Popen[bytes]:
    """Real processes, as a person starts them."""
    words = [
        "tiny.yaml",
        "hardware=cpu-fsdp",
        "variants=[mhc]",
        *STEPS,
        "--runs",
        "runs",
        "--records",
        "records",
    ]
    return subprocess.Popen([sys.executable, "-m", "mhc_bench", "run", *words], cwd=ground.root)


@pytest.fixture(scope="session")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    ground = Ground(tmp_path_factory.mktemp("two-ranks"))
    assert two_ranks(ground).wait(600) == 0
    return contents(ground)


@pytest.mark.faults
@pytest.mark.ranks
@pytest.mark.parametrize("rank", [0, 1])
def test_a_suite_of_two_ranks_of_which_one_is_killed_ends_with_the_same_bits(
    tmp_path: Path, of_two_ranks: dict[str, Any], rank: int
) -> None:
    ground = Ground(tmp_path)
    disturbed = two_ranks(ground)
    while not any(checkpoint_folders(run) for run in ground.runs.glob("tiny-*/mhc/seed0")):
        assert disturbed.poll() is None
        time.sleep(0.05)
    os.kill(ranks_of(ground.folder("mhc"))[rank], signal.SIGKILL)
    assert disturbed.wait(600) == 1
    before = stamps(ground.runs)
    assert "record.json" not in {Path(name).name for name in before}
    assert two_ranks(ground).wait(600) == 0
    assert before.items() <= stamps(ground.runs).items()
    assert differences(contents(ground), of_two_ranks) == []


def ranks_of(folder: Path) -> dict[int, int]:
    """The processes of a run's ranks, by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            settings = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mhc_bench.suite.ranks" in words and str(folder.relative_to(folder.parents[3])).encode() in words:
            found |= {int(each[5:]): int(entry.name) for each in settings if each.startswith(b"RANK=")}
    return found

"""Jobs of a real SLURM: disturbed in the ways of a cluster, and finished with the bits of an undisturbed run.

`tests/slurm/cluster.sh` starts the SLURM that these need; `tox -e slurm` does all of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhc_bench.suite.slurm import ask_jobs, in_queue, job_of
from mhc_bench.suite.state import read_json

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        shutil.which("sbatch") is None or "SLURM_CONF" not in os.environ,
        reason="needs a SLURM of its own: tests/slurm/cluster.sh starts one, SLURM_CONF names it",
    ),
]
HERE = Path(__file__).parent
BASE = [
    "training.validate_every=50",
    "training.probe_every=50",
    "evaluation.limit=2",
    "logging.checkpoint_every=100000",
    "logging.loggers=[]",
]
SLURM = ["launcher=slurm", "launcher.poll=1", "launcher.partition=main"]
SLOW = "variants=[slow_variant:Slow]"


def command(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "mhc_bench", "run", "smoke", *BASE, *words, "--runs", str(root)]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    yield
    states = ask_jobs()
    left = [job for job in states if in_queue(job, states)]
    if left:
        subprocess.run(["scancel", *left], check=True)


def until(what: str, condition: Callable[[], Any], seconds: float = 600.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.2)
    return found


def the_folder(root: Path, variant: str) -> Path:
    places = f"*/{variant}/seed0/slurm.json"
    return Path(until(f"{variant}'s job", lambda: next(root.glob(places), None))).parent


def step(folder: Path) -> int:
    return int((read_json(folder / "progress.json") or {}).get("step", 0))


def restarts(job: str) -> int:
    told = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return int(told.partition("Restarts=")[2].split()[0])


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def test_jobs_of_two_ranks_that_are_preempted_and_requeued_end_with_the_bits_of_a_local_run(
    tmp_path: Path,
) -> None:
    words = ["variants=[baseline,slow_variant:Slow]", "training.steps=400", "hardware=cpu-fsdp"]
    root = tmp_path / "jobs"
    waiting = subprocess.Popen(command(root, *words, *SLURM), stdout=subprocess.PIPE, text=True)
    slow = the_folder(root, "Slow")
    job = until("the job's id", lambda: job_of(slow))

    until("some steps", lambda: step(slow) >= 20)
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    saved = until("a checkpoint", lambda: next(iter((slow / "checkpoints").glob("step-*")), None))
    until("the job's return", lambda: restarts(job) == 1)
    again = subprocess.run(
        command(root, *words, *SLURM, "launcher.wait=false"), capture_output=True, text=True
    )
    assert again.returncode == 0 and f"job {job} is in the queue already" in again.stdout
    assert job_of(slow) == job
    until("steps after the checkpoint", lambda: step(slow) > int(saved.name[5:]) + 20)

    subprocess.run(["scontrol", "requeue", job], check=True)
    until("the job's second return", lambda: restarts(job) == 2)

    out, _ = waiting.communicate(timeout=600)
    assert waiting.returncode == 0, out
    assert "[2/2]" in out and "Leaderboard:" in out
    local = subprocess.run(
        command(tmp_path / "local", "variants=[baseline]", *words[1:]), capture_output=True, text=True
    )
    assert local.returncode == 0, local.stdout + local.stderr

    (baseline,) = root.glob("*/baseline/seed0")
    (reference,) = tmp_path.glob("local/*/baseline/seed0")
    assert summary(slow)["restarts"] == 2 and summary(slow)["world_size"] == 2
    for folder in (slow, baseline):
        assert (folder / "record.json").exists()
        for name in ("weight_digest", "token_stream_digest", "validation"):
            assert summary(folder)[name] == summary(reference)[name], name
    assert not list(root.rglob("failure.txt")) and not list(root.rglob("*.tmp"))


def test_a_run_that_needs_longer_than_its_limit_goes_on_in_the_same_job(tmp_path: Path) -> None:
    words = [SLOW, "training.steps=700", "launcher.time=3m", "launcher.grace=60"]
    done = subprocess.run(command(tmp_path, *words, *SLURM), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = the_folder(tmp_path, "Slow")
    assert summary(folder)["restarts"] >= 1 and summary(folder)["steps"] == 700
    assert "stopped after step" in next((folder / "slurm").glob("*_0_log.out")).read_text()


def test_a_cancelled_job_stays_cancelled_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [SLOW, "training.steps=250", *SLURM]
    waiting = subprocess.Popen(command(tmp_path, *words), stdout=subprocess.PIPE, text=True)
    folder = the_folder(tmp_path, "Slow")
    job = until("the job's id", lambda: job_of(folder))
    until("some steps", lambda: step(folder) >= 10)
    subprocess.run(["scancel", job], check=True)
    out, _ = waiting.communicate(timeout=300)
    assert waiting.returncode == 75 and f"job {job} ended as CANCELLED before the run did" in out
    assert not (folder / "record.json").exists() and not (folder / "failure.txt").exists()
    done = subprocess.run(command(tmp_path, *words), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary(folder)["restarts"] == 1 and job_of(folder) != job


def test_a_job_that_slurm_refuses_gets_one_line(tmp_path: Path) -> None:
    words = [SLOW, *SLURM, "launcher.constraint=a100"]
    done = subprocess.run(command(tmp_path, *words), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("mhc-bench: SLURM refused the job: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_partition_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    words = [SLOW, *SLURM, "launcher.partition=mian"]
    done = subprocess.run(command(tmp_path / "runs", *words), capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean 'main'" in done.stderr
    assert not (tmp_path / "runs").exists()

"""Every missing run of a suite in a process of its own, some side by side; a failed one stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mhc_bench.config import RunConfig, SuiteConfig, check_same_run, run_configs, run_folder, save_run_config
from mhc_bench.config.load import RUN_CONFIG_FILE
from mhc_bench.errors import StoppedError
from mhc_bench.provenance import available_cores
from mhc_bench.suite.locks import unless_taken
from mhc_bench.suite.report import Reporter
from mhc_bench.suite.state import FAILURE_FILE, LOG_FILE, RunState, read_state

POLL_SECONDS = 0.5


@dataclass
class Job:
    """A run being computed by a process of its own."""

    run: RunConfig
    folder: Path
    place: int
    process: subprocess.Popen[bytes]
    started: float


def missing_runs(suite: SuiteConfig, root: Path) -> list[RunConfig]:
    """The runs of a suite that have no record yet.

    Raises:
        UsageError: a run's folder holds another run.
    """
    runs = run_configs(suite)
    for run in runs:
        check_same_run(run, run_folder(root, run))
    return [run for run in runs if not read_state(run_folder(root, run)).finished]


def slots(suite: SuiteConfig, device_count: int) -> int:
    """How many runs to compute at the same time: as many as finish sooner that way.

    Args:
        device_count: GPUs of this machine; 0 on a CPU.
    """
    hardware = suite.hardware
    if hardware.side_by_side:
        return hardware.side_by_side
    if hardware.accelerator == "gpu":
        return max(1, device_count // hardware.devices)
    return max(1, available_cores() // (hardware.threads * hardware.devices))


def run_missing(
    runs: list[RunConfig], root: Path, places: int, device_count: int, reporter: Reporter
) -> dict[str, RunState]:
    """Compute `runs`, at most `places` at a time, each on GPUs of its own as far as there are enough.

    Returns:
        The runs that did not finish, by name, with what they ended with.
    """
    waiting, jobs, failed = deque(runs), list[Job](), dict[str, RunState]()
    with _stopped_at_the_end(jobs):
        while waiting or jobs:
            while waiting and len(jobs) < places:
                free = min(set(range(places)) - {job.place for job in jobs})
                jobs.append(_start(waiting.popleft(), root, free, device_count))
            time.sleep(POLL_SECONDS)
            for job in [job for job in jobs if job.process.poll() is not None]:
                jobs.remove(job)
                state = _outcome(job)
                reporter.finished(job.run, job.folder, state, time.monotonic() - job.started)
                if not state.finished:
                    failed[reporter.name(job.run)] = state
            reporter.update([(job.run, job.folder) for job in jobs], len(waiting))
    return failed


def make_ready(run: RunConfig, folder: Path) -> None:
    """Give a run its folder, as a worker expects it; one that a worker has in hand is ready."""
    while True:
        with unless_taken(folder) as mine:
            if mine:
                save_run_config(run, folder)
                (folder / FAILURE_FILE).unlink(missing_ok=True)
                return
        if (folder / RUN_CONFIG_FILE).exists():
            return
        # another process that runs the suite is just beginning with this run
        time.sleep(0.05)


def _start(run: RunConfig, root: Path, place: int, device_count: int) -> Job:
    folder = run_folder(root, run)
    make_ready(run, folder)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(run.hardware.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device_count:
        environment["CUDA_VISIBLE_DEVICES"] = visible_devices(place, run.hardware.devices, device_count)
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mhc_bench.suite.worker", str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    return Job(run, folder, place, process, time.monotonic())


def visible_devices(place: int, devices: int, device_count: int) -> str:
    """The GPUs of the run in one place: runs share a GPU where there are more places than GPUs."""
    first = place * devices
    return ",".join(str((first + index) % device_count) for index in range(devices))


def _outcome(job: Job) -> RunState:
    """The state of an ended run; an end without a record is a failure that says why."""
    state = read_state(job.folder)
    if state.finished or state.standing == "failed":
        return state
    code = job.process.returncode
    if code in (StoppedError.exit_code, -signal.SIGTERM):
        return RunState("interrupted", "told to stop; the same command goes on from its last checkpoint")
    reason = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return RunState("failed", f"{reason}; see {job.folder / LOG_FILE}")


@contextmanager
def _stopped_at_the_end(jobs: list[Job]) -> Iterator[None]:
    """No run outlives the suite: on Ctrl-C or an error it is told to stop, on a second Ctrl-C killed."""
    try:
        yield
    finally:
        _signal(jobs, signal.SIGTERM)
        try:
            for job in jobs:
                job.process.wait()
        except KeyboardInterrupt:
            _signal(jobs, signal.SIGKILL)
            raise


def _signal(jobs: list[Job], number: signal.Signals) -> None:
    for job in jobs:
        if job.process.poll() is None:
            os.killpg(job.process.pid, number)

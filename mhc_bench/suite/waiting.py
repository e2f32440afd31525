"""A suite's missing runs as SLURM jobs: submit them, and wait for them where that is asked for."""

from __future__ import annotations

import time
from pathlib import Path

from mhc_bench.config import RunConfig, SlurmConfig, run_folder
from mhc_bench.errors import RunError, StoppedError
from mhc_bench.suite.report import Reporter
from mhc_bench.suite.slurm import JOB_FOLDER, job_of, queued_jobs, submit_once
from mhc_bench.suite.state import RunState, read_state

LOOKS_WITHOUT_ANSWER = 20
"""A controller may be busy or restart; jobs go on meanwhile."""


def run_as_jobs(
    runs: list[RunConfig], root: Path, launcher: SlurmConfig, reporter: Reporter
) -> dict[str, RunState]:
    """Submit `runs`, but for those whose jobs are in the queue, and wait for all, if `launcher.wait`.

    Returns:
        The runs that did not finish, by name, with what they ended with.

    Raises:
        RunError: SLURM refused a job, or has stopped answering.
        StoppedError: Ctrl-C; the jobs go on.
    """
    jobs: dict[str, RunConfig] = {}
    for run in runs:
        job, new = submit_once(run, run_folder(root, run), launcher)
        jobs[job] = run
        reporter.say(f"{reporter.name(run)}: job {job} {'submitted' if new else 'is in the queue already'}")
    if not launcher.wait:
        reporter.say("Jobs go on by themselves; the same command later ranks what has finished.")
        return {}
    try:
        return _wait(jobs, root, launcher.poll, reporter)
    except KeyboardInterrupt:
        ids = " ".join(job for job, run in jobs.items() if not read_state(run_folder(root, run)).finished)
        raise StoppedError(
            f"the jobs go on: cancel them with scancel {ids}, or wait again: same command"
        ) from None


def _wait(jobs: dict[str, RunConfig], root: Path, poll: float, reporter: Reporter) -> dict[str, RunState]:
    began, failed, silent, gone = time.monotonic(), dict[str, RunState](), 0, set[str]()
    waiting = dict(jobs)
    while waiting:
        time.sleep(poll)
        try:
            queue, silent = queued_jobs(), 0
        except RunError:
            silent += 1
            if silent == LOOKS_WITHOUT_ANSWER:
                raise
            continue
        for job, run in list(waiting.items()):
            state = read_state(run_folder(root, run))
            # a job is over when its record is there, or when it is missing twice: files may come late
            if not state.finished and (job in queue or job not in gone):
                gone = gone - {job} if job in queue else gone | {job}
                continue
            del waiting[job]
            state = outcome(state, run_folder(root, run), job)
            reporter.finished(run, run_folder(root, run), state, time.monotonic() - began)
            if not state.finished:
                failed[reporter.name(run)] = state
        running = {job: run for job, run in waiting.items() if queue.get(job) == "RUNNING"}
        active = [(run, run_folder(root, run)) for run in running.values()]
        reporter.update(active, len(waiting) - len(active))
    return failed


def outcome(state: RunState, folder: Path, job: str) -> RunState:
    """The state of a run whose job is over; an end without a record says where to look."""
    if state.finished or state.standing == "failed":
        return state
    log = folder / JOB_FOLDER / f"{job}_0_log.out"
    return RunState(
        "interrupted", f"job {job} is over and the run is not; the same command goes on; see {log}"
    )


def job_line(run: RunConfig, folder: Path, queue: dict[str, str]) -> str:
    """What the dry run says of a run: its job in the queue, or the one that would be submitted."""
    job = job_of(folder)
    if job is not None and job in queue:
        return f"job {job} is {queue[job].lower()}"
    return f"a job of {run.hardware.nodes} x {run.hardware.devices} tasks would be submitted"

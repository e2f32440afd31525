"""A suite's missing runs as SLURM jobs: submit them, and wait for them where that is asked for."""

from __future__ import annotations

import time
from pathlib import Path

from mhc_bench.config import RunConfig, SlurmConfig, run_folder
from mhc_bench.errors import RunError, StoppedError
from mhc_bench.suite.report import Reporter
from mhc_bench.suite.slurm import BROKEN, JOB_FOLDER, ask_jobs, in_queue, job_of, submit_once
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
    try:
        for run in runs:
            job, new = submit_once(run, run_folder(root, run), launcher)
            jobs[job] = run
            reporter.say(
                f"{reporter.name(run)}: job {job} {'submitted' if new else 'is in the queue already'}"
            )
        if launcher.wait:
            return _wait(jobs, root, launcher.poll, reporter)
    except KeyboardInterrupt:
        ids = " ".join(job for job, run in jobs.items() if not read_state(run_folder(root, run)).finished)
        raise StoppedError(f"the jobs go on, and the same command waits again; or: scancel {ids}") from None
    reporter.say("The jobs go on by themselves; the same command later ranks what has finished.")
    return {}


def _wait(jobs: dict[str, RunConfig], root: Path, poll: float, reporter: Reporter) -> dict[str, RunState]:
    began, unfinished, watch, waiting = time.monotonic(), dict[str, RunState](), Watch(), dict(jobs)
    while waiting:
        time.sleep(poll)
        states = watch.look()
        ends = {job: watch.end(job, run_folder(root, run)) for job, run in waiting.items()}
        for job, state in ends.items():
            if state is not None:
                run = waiting.pop(job)
                reporter.finished(run, run_folder(root, run), state, time.monotonic() - began)
                unfinished |= {} if state.finished else {reporter.name(run): state}
        active = [
            (run, run_folder(root, run)) for job, run in waiting.items() if states.get(job) == "RUNNING"
        ]
        reporter.update(active, len(waiting) - len(active))
    return unfinished


class Watch:
    """What SLURM and the runs' folders say of jobs, look after look."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._over: set[str] = set()
        self._silent = 0

    def look(self) -> dict[str, str]:
        """Ask SLURM; a controller that does not answer leaves the states as they were, for a while.

        Raises:
            RunError: too many looks without an answer.
        """
        try:
            self._states, self._silent = ask_jobs(), 0
        except RunError:
            self._silent += 1
            if self._silent == LOOKS_WITHOUT_ANSWER:
                raise
        return self._states

    def end(self, job: str, folder: Path) -> RunState | None:
        """How a job's run ended, or None while it goes on: files may come a look later than the job's end."""
        state = read_state(folder)
        if state.finished:
            return state
        if self._silent or in_queue(job, self._states):
            self._over.discard(job)
            return None
        if job not in self._over:
            self._over.add(job)
            return None
        return state if state.standing == "failed" else ended_as(self._states.get(job), folder, job)


def ended_as(told: str | None, folder: Path, job: str) -> RunState:
    """The state of a run whose job is over without a record, from what SLURM still knows of the job."""
    log = folder / JOB_FOLDER / f"{job}_0_log.out"
    detail = f"job {job} ended{f' as {told}' if told else ''} before the run did; see {log}"
    return RunState("failed" if told in BROKEN else "interrupted", detail)


def job_line(run: RunConfig, folder: Path, states: dict[str, str]) -> str:
    """What the dry run says of a run: its job in the queue, or the one that would be submitted."""
    job = job_of(folder)
    if job is not None and in_queue(job, states):
        return f"job {job} is {states[job].lower()}"
    return f"a job of {run.hardware.nodes} x {run.hardware.devices} tasks would be submitted"

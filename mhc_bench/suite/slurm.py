"""Runs as SLURM jobs, submitted through submitit: one job per run, queued again where it was told to stop.

A job's id is kept in its run's folder and SLURM is asked what became of it, so that no run is submitted while
a job of it is queued or running, whoever asks.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

from filelock import FileLock

from mhc_bench.config import RunConfig, SlurmConfig
from mhc_bench.config.check import minutes
from mhc_bench.errors import RunError, StoppedError, UsageError, choose
from mhc_bench.files import write_json
from mhc_bench.suite.jobs import work_as_rank
from mhc_bench.suite.runner import make_ready
from mhc_bench.suite.state import JOB_FILE, read_json

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sinfo")
JOB_FOLDER = "slurm"
SUBMIT_LOCK = ".submit.lock"
STOPPED = ("CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "TIMEOUT")
"""How SLURM ends jobs that may simply be submitted again."""
BROKEN = ("BOOT_FAIL", "COMPLETED", "FAILED", "OUT_OF_MEMORY")
"""How else jobs end; `COMPLETED` without a record is no good end either."""


def check_slurm(launcher: SlurmConfig) -> None:
    """Refuse to submit from a machine without SLURM, or to a partition that there is not.

    Raises:
        UsageError: naming what is missing, or the nearest partition.
    """
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise UsageError(
            f"launcher=slurm: this machine has no {', '.join(missing)}: expected a node that submits SLURM "
            "jobs, or launcher=local"
        )
    if launcher.partition:
        partitions = _ask("sinfo", "--noheader", "--format=%R").split()
        for name in launcher.partition.split(","):
            choose("partition", name, partitions)


def ask_jobs() -> dict[str, str]:
    """Id -> state of this user's jobs, those that ended a few minutes ago included.

    Raises:
        RunError: SLURM does not answer.
    """
    user = f"--user={getpass.getuser()}"
    lines = _ask("squeue", user, "--states=all", "--noheader", "--format=%i %T").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip())


def in_queue(job: str | None, states: dict[str, str]) -> bool:
    """Whether a job is waiting, running or ending."""
    return job in states and states[job] not in {*STOPPED, *BROKEN}


def job_of(folder: Path) -> str | None:
    """The id of the job that was last submitted for the run in `folder`."""
    job = (read_json(folder / JOB_FILE) or {}).get("job")
    return None if job is None else str(job)


def submit_once(run: RunConfig, folder: Path, launcher: SlurmConfig) -> tuple[str, bool]:
    """The id of the run's job, and whether it is a new one: one that is in the queue is enough.

    Raises:
        RunError: SLURM refused the job, or does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / SUBMIT_LOCK):
        job = job_of(folder)
        if job is not None and in_queue(job, ask_jobs()):
            return job, False
        make_ready(run, folder)
        job = _submit(run, folder.resolve(), launcher)
        write_json(folder / JOB_FILE, {"job": job})
        return job, True


def _submit(run: RunConfig, folder: Path, launcher: SlurmConfig) -> str:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(folder=folder / JOB_FOLDER)
    executor.update_parameters(**job_parameters(run, launcher))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints there what it raises, too
            return str(executor.submit(work_as_rank, str(folder)).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if "sbatch: error" in line] or [str(error)]
        raise RunError(f"SLURM refused the job: {lines[-1].removeprefix('sbatch: error: ')}") from None


def job_parameters(run: RunConfig, launcher: SlurmConfig) -> dict[str, Any]:
    """What submitit is told of a run's job; None leaves a choice to the cluster."""
    hardware = run.hardware
    cores = hardware.threads + hardware.workers
    names = (run.suite, run.arm, run.variant_name, f"seed{run.seed}")
    return {
        "job_name": "-".join(name for name in names if name),
        "nodes": hardware.nodes,
        "ntasks_per_node": hardware.devices,
        "cpus_per_task": cores,
        "gpus_per_node": hardware.devices if hardware.accelerator == "gpu" else None,
        "time": minutes(launcher.time),
        "signal_delay_s": launcher.grace,
        "partition": launcher.partition or None,
        "account": launcher.account or None,
        "qos": launcher.qos or None,
        "constraint": launcher.constraint or None,
        "mem": launcher.memory or None,
        "wckey": None,
        "additional_parameters": {"requeue": True, **launcher.options},
        "setup": [
            f"export OMP_NUM_THREADS={hardware.threads} TOKENIZERS_PARALLELISM=false",
            *launcher.setup,
        ],
        "teardown": requeue_commands(launcher.requeues),
        "stderr_to_stdout": True,
        # srun is told the cores per task by nothing else; a lost rank ends the others, which wait for it;
        # the output of a job that starts again follows what it said before
        "srun_args": [f"--cpus-per-task={cores}", "--kill-on-bad-exit=1", "--open-mode=append"],
    }


def requeue_commands(most: int) -> list[str]:
    """Shell commands after the ranks have ended: a job that was told to stop is queued again."""
    return [
        "code=$?",
        f'if [ "$code" -eq {StoppedError.exit_code} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or error)
        raise RunError(f"{command[0]}: {' '.join(told.split())[:300]}") from None
    return done.stdout

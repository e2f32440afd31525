"""Starting the ranks of a run on this machine, whatever command the run was asked for with."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mhc_bench.config.schema import RunConfig
from mhc_bench.errors import RunError, StoppedError
from mhc_bench.stopping import STOP_SIGNALS, handlers_kept

SECONDS_BETWEEN_LOOKS = 0.5
FORWARDED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, *STOP_SIGNALS)
SECONDS_TO_STOP = 600
"""After a stop signal: for the current step and a checkpoint."""


def launch_ranks(config: RunConfig, run_dir: Path, quiet: bool) -> None:
    """Train `run_dir` (its `config.yaml`) in one process per device and wait for them.

    Raises:
        RunError: a rank failed; the others have been ended.
        StoppedError: a signal came, and the ranks have ended.
    """
    arguments = [str(run_dir), *(["--quiet"] if quiet else [])]
    launch_module(config, config.hardware.devices, "mhc_bench.training.ranks", arguments)


def launch_module(config: RunConfig, ranks: int, module: str, arguments: list[str]) -> None:
    """Run `python -m module` for a run in `ranks` processes of this machine and wait for them.

    Raises:
        RunError: a rank failed; the others have been ended.
        StoppedError: a signal came, and the ranks have ended.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _launch(config, ranks, scratch, ["-m", module, *arguments])


def _launch(config: RunConfig, ranks: int, scratch: str, command: list[str]) -> None:
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle=",".join(number.name for number in FORWARDED),
        logs_specs=DefaultLogsSpecs(log_dir=scratch),
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(config.hardware.threads))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_STOP))
    try:
        with handlers_kept(FORWARDED):
            elastic_launch(launch, sys.executable)(*command)
    except SignalException as error:
        raise StoppedError(f"stopped by {error.sigval.name}: the same command goes on") from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == StoppedError.exit_code:
            raise StoppedError("the ranks were told to stop: the same command goes on") from None
        raise RunError(
            f"rank {rank} of {config.variant_name} seed {config.seed}: {_reason(failure.message)}"
        ) from error


def _reason(message: object) -> str:
    """The last line of what a rank left behind."""
    text = str(message.get("message", message)) if isinstance(message, dict) else str(message)
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "ended without a message"


def end_with_parent() -> None:
    """End this process when its parent is gone: a killed run leaves no rank behind that goes on writing."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()

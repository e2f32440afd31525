"""One run from wherever it stands to its record: `python -m mhc_bench.suite.worker RUN_DIR`."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from mhc_bench.config import RunConfig, load_run_config
from mhc_bench.errors import MhcBenchError, StoppedError, UsageError
from mhc_bench.files import remove_unfinished, write_text
from mhc_bench.stopping import ends_when_told
from mhc_bench.suite.evaluating import evaluate_run, to_evaluate
from mhc_bench.suite.failures import reason, record_failure
from mhc_bench.suite.locks import is_first_rank, locked
from mhc_bench.suite.record import record_run
from mhc_bench.suite.retraining import put_back_if_damaged
from mhc_bench.suite.state import FAILURE_FILE, JOB_FILE, REFUSED, TRAINING_FILE, read_state


def complete_run(run: RunConfig, folder: Path) -> None:
    """Train, evaluate and record what of this is missing. Safe to repeat; one process at a time.

    The ranks of a run that takes several are started once, for all its stages.
    """
    with locked(folder):
        if is_first_rank():
            remove_unfinished(folder, JOB_FILE)
        if read_state(folder).finished:
            return
        if is_first_rank():
            put_back_if_damaged(run, folder)
        if not (run.hardware.devices > 1 and _lacks_ranks(run, folder)):
            complete_as_rank(run, folder)
        else:
            from mhc_bench.training.launch import launch_module

            launch_module(run, run.hardware.devices, "mhc_bench.suite.ranks", [str(folder)])


def _lacks_ranks(run: RunConfig, folder: Path) -> bool:
    """Whether there is something to compute, and no launcher has started the ranks for it.

    Raises:
        UsageError: ranks that cannot be started from here.
    """
    if (folder / TRAINING_FILE).exists() and not to_evaluate(run, folder, folder):
        return False
    from mhc_bench.training.checks import check_run, launched

    check_run(run)
    return not launched()


def complete_as_rank(run: RunConfig, folder: Path) -> None:
    """One process's part of `complete_run`; the caller holds the lock, or is one of its ranks."""
    train_run(run, folder)
    evaluate_run(run, folder, folder)
    if is_first_rank():
        record_run(run, folder)


def train_run(run: RunConfig, folder: Path) -> None:
    """Train to the end unless that is done."""
    if not (folder / TRAINING_FILE).exists():
        from mhc_bench.training import fit

        fit(run, folder)
    elif is_first_rank():
        from mhc_bench.training.checkpoints import clear_away

        clear_away(folder)  # the process before may have been killed between the two


@contextlib.contextmanager
def recorded(run: RunConfig, folder: Path) -> Iterator[None]:
    """An error inside leaves a record behind and goes on; wrong usage and being told to stop leave none."""
    try:
        yield
    except (UsageError, StoppedError):
        raise
    except Exception as error:
        if is_first_rank():
            record_failure(run, folder, reason(error))
        raise


def work(folder: Path) -> int:
    """Complete the run in `folder`; returns the exit code.

    What fails leaves its reason behind, and but for wrong usage a record; being told to stop leaves neither.
    """
    run = None
    try:
        with ends_when_told():
            run = load_run_config(folder)
            complete_run(run, folder)
    except StoppedError as told:
        print(told, flush=True)
        return told.exit_code
    except UsageError as refused:
        traceback.print_exc()
        write_text(folder / FAILURE_FILE, f"{REFUSED}{reason(refused)}\n")
        return refused.exit_code
    except Exception as error:
        traceback.print_exc()
        write_text(folder / FAILURE_FILE, f"{reason(error)}\n")
        if run is not None and is_first_rank():
            record_failure(run, folder, reason(error))
        return error.exit_code if isinstance(error, MhcBenchError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))

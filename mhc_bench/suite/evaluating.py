"""The evaluation of a trained run, on every device that it has here."""

from __future__ import annotations

import gc
import tempfile
from datetime import timedelta
from pathlib import Path

from mhc_bench.config import HardwareConfig, RunConfig, save_run_config
from mhc_bench.suite.state import EVALUATION_FILE, TRAINING_FILE, read_json


def evaluable(run: RunConfig, folder: Path) -> bool:
    """Whether a trained run has tasks to be evaluated on and weights that are worth it."""
    trained = read_json(folder / TRAINING_FILE) or {}
    return bool(run.evaluation.tasks) and trained.get("status") == "complete"


def to_evaluate(run: RunConfig, folder: Path, out: Path) -> bool:
    """Whether an evaluation into `out` is still to be made."""
    return evaluable(run, folder) and not (out / EVALUATION_FILE).exists()


def evaluate_run(run: RunConfig, folder: Path, out: Path) -> None:
    """Evaluate a trained run into `out` on its suite's tasks, where it has any; not a diverged run.

    Where a launcher has started several ranks, all of them call this; elsewhere they are started from here.

    Raises:
        UsageError: a task that is unknown or cannot run here.
        RunError: no final model, one that is not the run's, or a rank failed.
    """
    if not to_evaluate(run, folder, out):
        return
    from mhc_bench.training.checks import launched

    ranks = ranks_here(run.hardware)
    if launched() or ranks == 1:
        _evaluate_here(run, folder, out)
    else:
        _launch(run, folder, out, ranks)


def ranks_here(hardware: HardwareConfig) -> int:
    """As many as the run has devices on a node, as far as this machine has them."""
    if hardware.accelerator == "cpu":
        return hardware.devices
    import torch

    return max(1, min(hardware.devices, torch.cuda.device_count()))


def _launch(run: RunConfig, folder: Path, out: Path, ranks: int) -> None:
    from mhc_bench.evaluation import check_runnable
    from mhc_bench.training.launch import launch_module

    check_runnable(run.evaluation.tasks)
    with tempfile.TemporaryDirectory() as scratch:
        save_run_config(run, Path(scratch))
        launch_module(run, ranks, "mhc_bench.suite.ranks", [str(folder), scratch, str(out)])


def _evaluate_here(run: RunConfig, folder: Path, out: Path) -> None:
    """As one rank, alone or among those of a launcher, which may have trained before."""
    import torch
    import torch.distributed as dist

    from mhc_bench.evaluation import evaluate
    from mhc_bench.training.checks import launched

    if launched() and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(seconds=run.hardware.collective_timeout))
    gc.collect()  # a trainer and its model hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trained = read_json(folder / TRAINING_FILE) or {}
    evaluate(run, folder, out, weights=trained.get("weight_digest"))

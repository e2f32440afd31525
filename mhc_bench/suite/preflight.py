"""What cannot work is found here, before anything is written: model, variant, data, tasks, hardware."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mhc_bench.config import RunConfig
from mhc_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mhc_bench.data import TokenSource


@dataclass(frozen=True)
class Counts:
    """Size of one variant of a suite's model."""

    parameters: dict[str, int]
    flops_per_token: int


def preflight(runs: Iterable[RunConfig]) -> dict[tuple[str, str], Counts]:
    """Check what a suite's runs need, and count its models on the meta device.

    Returns:
        (arm, variant name) -> counts.

    Raises:
        UsageError: an option, size, path, task or device that cannot work.
    """
    from mhc_bench.data import open_source
    from mhc_bench.evaluation import check_tasks

    distinct = {(run.arm, run.variant_name): run for run in runs}
    for run in distinct.values():
        _check_hardware(run)
        check_tasks(run.evaluation.tasks)
    sources = {str(run.data): run.data for run in distinct.values()}
    opened = {key: open_source(data) for key, data in sources.items()}
    return {key: _count(run, opened[str(run.data)]) for key, run in distinct.items()}


def check_evaluations(runs: Iterable[RunConfig]) -> None:
    """Refuse to train for an evaluation that cannot run on this machine.

    Raises:
        UsageError: naming what is missing and the commands that get it.
    """
    from mhc_bench.evaluation import check_runnable

    for tasks in dict.fromkeys(tuple(run.evaluation.tasks) for run in runs):
        check_runnable(tasks)


def _check_hardware(run: RunConfig) -> None:
    if run.hardware.accelerator == "cpu":
        return
    import torch

    found = torch.cuda.device_count()
    if found < run.hardware.devices:
        raise UsageError(
            f"hardware asks for {run.hardware.devices} GPU(s) per node and this machine has {found}: "
            "expected hardware=cpu or hardware=cpu-fsdp here"
        )


def _count(run: RunConfig, source: TokenSource) -> Counts:
    from mhc_bench.model import count_parameters, flops_per_token

    model = meta_model(run, source)
    return Counts(count_parameters(model), flops_per_token(model, run.training.sequence_length))


def meta_model(run: RunConfig, source: TokenSource) -> PreTrainedModel:
    """The grafted model of a run without memory for its weights."""
    from mhc_bench.training.module import build_model

    return build_model(run, source)

"""Runs that this machine or this process cannot train: refused before anything is written."""

from __future__ import annotations

import os

import torch

from mhc_bench.config.check import check_logging, check_protocol
from mhc_bench.config.schema import RunConfig
from mhc_bench.errors import UsageError


def world_size(config: RunConfig) -> int:
    """Ranks of a run over all nodes."""
    return config.hardware.devices * config.hardware.nodes


def check_run(config: RunConfig) -> None:
    """Refuse what cannot be trained here.

    Raises:
        UsageError: naming the value and what was expected.
    """
    check_protocol(config, config.hardware)
    if not 0 <= config.seed < 2**31:
        raise UsageError(f"seed is {config.seed}: expected a whole number from 0 to {2**31 - 1}")
    if (config.search is None) != (config.tuned is None):
        raise UsageError(
            f"{config.variant_name} is {'' if config.tuned else 'not '}tuned: expected chosen values with a "
            "search section, and only with one; mhc-bench run makes the trials"
        )
    check_logging(config.logging, config.training.steps)
    _check_devices(config)


def _check_devices(config: RunConfig) -> None:
    hardware = config.hardware
    if hardware.accelerator == "gpu":
        found = torch.cuda.device_count()
        if found < hardware.devices:
            raise UsageError(
                f"hardware.devices is {hardware.devices} with hardware.accelerator=gpu: this machine has "
                f"{found} CUDA devices; hardware=cpu or hardware=cpu-fsdp run without"
            )
    if not launched():
        if hardware.nodes > 1:
            raise UsageError(
                f"hardware.nodes is {hardware.nodes}: start each node with torchrun (docs/hardware.md)"
            )
        return
    ranks, expected = int(os.environ["WORLD_SIZE"]), world_size(config)
    if ranks != expected:
        raise UsageError(
            f"torchrun started {ranks} ranks: expected hardware.devices x hardware.nodes = {expected}"
        )


def launched() -> bool:
    """Whether this process is one rank of several that torchrun (or `launch_ranks`) started."""
    return torch.distributed.is_torchelastic_launched()

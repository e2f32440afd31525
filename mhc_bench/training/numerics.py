"""The settings that decide whether a run can be repeated to the bit."""

from __future__ import annotations

from typing import Any

import torch

from mhc_bench.config.schema import RunConfig


def numerics(config: RunConfig) -> dict[str, Any]:
    """Precision and determinism as this process trains: the fields of a record's `numerics`.

    `config` is that of a run whose operations are settled.
    """
    return {
        "precision": config.training.precision,
        "operations": config.hardware.operations,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if config.hardware.accelerator == "gpu" else None,
    }

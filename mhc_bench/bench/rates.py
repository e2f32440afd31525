"""How fast this machine multiplies matrices and copies memory: what a step's floor is made of."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mhc_bench.bench.clock import Clock
from mhc_bench.evidence.gpus import bf16_flops

SIDE = {"cpu": 1024, "cuda": 8192}
"""Side of the multiplied square matrices: large enough for the full rate, milliseconds on a core or a GPU."""
COPIED = {"cpu": 64 * 2**20, "cuda": 2**30}
"""Bytes of the copied tensor: far beyond the caches."""


@dataclass(frozen=True)
class MachineRates:
    """Measured with the threads and the dtype of the measured steps."""

    matmul_flops_per_second: float
    """Multiplications and additions of a square matrix product."""
    copy_bytes_per_second: float
    """Bytes read plus bytes written by a copy."""
    dtype: str
    """Of the product."""
    peak_flops_per_second: float | None
    """As the maker states it for this GPU and bf16; None where that is not known."""


def measure_rates(device: torch.device, dtype: torch.dtype = torch.float32) -> MachineRates:
    """The median rate of a few products and copies on `device`."""
    side, copied, clock = SIDE[device.type], COPIED[device.type], Clock(device, cold=False)
    # a GPU multiplies constants faster than numbers of a model: it draws less power
    drawn = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=drawn, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    return MachineRates(
        matmul_flops_per_second=2 * side**3 / _seconds(lambda: torch.mm(left, right, out=product), clock),
        copy_bytes_per_second=2 * copied / _seconds(lambda: target.copy_(source), clock),
        dtype=str(dtype).removeprefix("torch."),
        peak_flops_per_second=bf16_flops(gpu_name(device)) if dtype is torch.bfloat16 else None,
    )


def gpu_name(device: torch.device) -> str:
    """The name of a GPU; empty for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _seconds(work: Callable[[], object], clock: Clock, repeats: int = 9) -> float:
    return statistics.median([clock(work) for _ in range(repeats)][2:])

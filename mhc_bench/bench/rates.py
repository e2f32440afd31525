"""How fast this machine multiplies matrices and copies memory: what a step's floor is made of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIDE = 1024
"""Side of the multiplied square matrices: large enough for the full rate, a few milliseconds on a core."""
COPIED = 64 * 2**20
"""Bytes of the copied tensor: beyond the caches of one core."""


@dataclass(frozen=True)
class MachineRates:
    """Measured with the threads and the dtype of the measured steps."""

    matmul_flops_per_second: float
    """Multiplications and additions of a square matrix product."""
    copy_bytes_per_second: float
    """Bytes read plus bytes written by a copy."""


def measure_rates(device: torch.device, dtype: torch.dtype = torch.float32) -> MachineRates:
    """The median rate of a few products and copies on `device`."""
    left = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    right, product = torch.ones_like(left), torch.empty_like(left)
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return MachineRates(
        matmul_flops_per_second=2 * SIDE**3 / _seconds(lambda: torch.mm(left, right, out=product), device),
        copy_bytes_per_second=2 * COPIED / _seconds(lambda: target.copy_(source), device),
    )


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was asked; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])

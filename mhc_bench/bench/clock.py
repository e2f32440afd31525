"""Clocks: wall-clock time on a CPU, the device's own events on a GPU, with warm or with cold caches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

CPU_CACHE = 2**26
"""Bytes that are written to empty the caches of a core."""
GPU_CACHES = 8
"""Sizes of a GPU's L2 cache that are written to empty it, and to keep it busy while the work is queued."""


class Clock:
    """Seconds that `device` takes for a piece of work.

    On a GPU the time lies between two events in the device's queue. With cold caches the device first
    overwrites a buffer larger than its cache, for long enough that the host has queued the work meanwhile:
    what the host needs for launching is then left out, as it is in a step whose queue never runs dry.

    Args:
        cold: empty the caches before the work.
    """

    def __init__(self, device: torch.device, *, cold: bool) -> None:
        self.device = device
        self._buffer = torch.empty(_cache_bytes(device) if cold else 0, dtype=torch.uint8, device=device)

    def __call__(self, work: Callable[[], object]) -> float:
        """Do `work` once."""
        if self.device.type == "cuda":
            return self._on_gpu(work)
        self.flush()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def flush(self) -> None:
        """Put the buffer into the caches, and everything else out of them."""
        if self._buffer.numel():
            self._buffer.zero_()

    def _on_gpu(self, work: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        synchronize(self.device)
        self.flush()
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was asked; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cache_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return CPU_CACHE
    return GPU_CACHES * max(int(torch.cuda.get_device_properties(device).L2_cache_size), 2**26)

"""Clocks: wall-clock time on a CPU, the device's own events on a GPU, with warm or with cold caches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

CPU_CACHE = 2**26
"""Bytes that are written to empty the caches of a core."""
GPU_CACHES = 8
"""Sizes of a GPU's L2 cache that are written to empty it."""
HEAD_START = 2.0
"""Times what the host has taken to queue the work so far that a GPU is kept busy before it."""
LONGEST_QUEUEING = 0.02
"""Seconds; what takes longer compiled something, or waited."""


class Clock:
    """Seconds that `device` takes for a piece of work.

    On a GPU the time lies between two events in the device's queue. With cold caches the device first
    overwrites a buffer larger than its cache, as often as gives the host time to queue the work meanwhile:
    what the host needs for launching is then left out, as it is in a step whose queue never runs dry. How
    long that is shows in the rounds that warm up.

    Args:
        cold: empty the caches before the work.
    """

    def __init__(self, device: torch.device, *, cold: bool) -> None:
        self.device = device
        self._buffer = torch.empty(_cache_bytes(device) if cold else 0, dtype=torch.uint8, device=device)
        self._queueing = 0.0
        """Seconds that the host took to queue the work, at most; 0 with warm caches."""
        self._flushing = 0.0
        """Seconds of one flush."""

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
        before, start, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
        synchronize(self.device)
        times = flushes(self._queueing, self._flushing)
        before.record()
        for _ in range(times):
            self.flush()
        start.record()
        began = time.perf_counter()
        work()
        queueing = time.perf_counter() - began
        end.record()
        end.synchronize()
        if self._buffer.numel():
            self._flushing = float(before.elapsed_time(start)) / 1e3 / times
            self._queueing = max(self._queueing, queueing if queueing < LONGEST_QUEUEING else 0.0)
        return float(start.elapsed_time(end)) / 1e3


def flushes(queueing: float, flushing: float) -> int:
    """How many flushes of `flushing` seconds give a head start over a host that queues for `queueing`."""
    return max(1, math.ceil(HEAD_START * queueing / flushing)) if flushing else 1


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was asked; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cache_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return CPU_CACHE
    return GPU_CACHES * max(int(torch.cuda.get_device_properties(device).L2_cache_size), 2**26)

"""Where a step's time goes, by operator, and how much memory it allocates at once."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from mhc_bench.bench.clock import synchronize

# the profiler's library announces every start and stop on stderr otherwise; it reads this at its first use
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@dataclass(frozen=True)
class Operator:
    """Totals of one operator in one step, its callees left out."""

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class StepProfile:
    """One variant's step under the profiler, which slows small operators: read shares, not times."""

    operators: list[Operator]
    """Most expensive first."""
    seconds: float
    """All operators together."""


def profile_steps(step: Callable[[], object], device: torch.device, steps: int = 2) -> StepProfile:
    """Operators of `step`, per step, over `steps` steps."""
    with _no_collection(), profile(activities=_activities(device)) as trace:
        for _ in range(steps):
            step()
        synchronize(device)
    cuda = device.type == "cuda"
    operators = [
        Operator(
            name=event.key,
            calls=event.count / steps,
            seconds=(event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6 / steps,
        )
        for event in trace.key_averages()
    ]
    operators.sort(key=lambda operator: -operator.seconds)
    return StepProfile(operators, sum(operator.seconds for operator in operators))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """A collection of garbage would be charged to whichever operator is written in Python: half a second."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def peak_step_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Most bytes that one step held at once beyond what lay there before: activations, gradients, scratch."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()  # what earlier work left in cycles must not be released inside, where it would count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    return _peak(trace)


def _peak(trace: profile) -> int:
    """The running sum of all allocations and releases, at its highest."""
    assert trace.profiler is not None
    assert trace.profiler.kineto_results is not None
    changes = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()  # type: ignore[attr-defined]
        peak = max(peak, held)
    return peak


def _activities(device: torch.device) -> list[ProfilerActivity]:
    gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return [ProfilerActivity.CPU, *gpu]

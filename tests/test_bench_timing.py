"""Interleaved timing and its intervals."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mhc_bench.bench.clock import Clock
from mhc_bench.bench.table import table
from mhc_bench.bench.timing import interleave, median_interval, quantiles


def test_steps_take_turns_and_none_is_always_first() -> None:
    order: list[str] = []
    steps = [lambda name=name: order.append(name) or float(ord(name)) for name in "abc"]
    times = interleave(steps, rounds=3, warmup=1)
    assert times.shape == (3, 3)
    assert "".join(order) == "abcbcacababc"


def test_each_time_belongs_to_its_step_whatever_the_turn() -> None:
    times = interleave([lambda: 1.0, lambda: 4.0, lambda: 2.0], rounds=6, warmup=0)
    assert times.tolist() == [[1, 4, 2]] * 6


def test_the_clock_of_a_cpu_counts_the_work_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock(torch.device("cpu"), cold=True)
    clock.flush = lambda: now.__setitem__(0, now[0] + 100)  # type: ignore[method-assign]
    assert clock(lambda: now.__setitem__(0, now[0] + 3)) == 3


class SlowHost:
    """A GPU whose host takes longer to launch than it takes to compute; seconds."""

    FLUSH, LAUNCH, KERNEL, KERNELS = 1.3e-4, 5e-5, 2e-6, 20

    def __init__(self) -> None:
        self.host = self.device = 0.0

    def queue(self, seconds: float) -> None:
        self.device = max(self.device, self.host) + seconds

    def work(self) -> None:
        for _ in range(self.KERNELS):
            self.host += self.LAUNCH
            self.queue(self.KERNEL)

    def compiling(self) -> None:
        self.host += 30.0
        self.work()

    def event(self, enable_timing: bool) -> SimpleNamespace:
        event = SimpleNamespace(at=0.0, synchronize=lambda: setattr(self, "host", self.device))
        event.record = lambda: setattr(event, "at", max(self.device, self.host))
        event.elapsed_time = lambda other: 1e3 * (other.at - event.at)
        return event


def test_a_host_that_launches_slowly_is_not_in_a_gpus_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, clock = SlowHost(), Clock(torch.device("cpu"), cold=True)
    clock.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
    clock.flush = lambda: gpu.queue(gpu.FLUSH)  # type: ignore[method-assign]
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: setattr(gpu, "host", gpu.device))
    monkeypatch.setattr(time, "perf_counter", lambda: gpu.host)
    first = [clock(work) for work in (gpu.compiling, gpu.work, gpu.work)][1]
    assert first > 5 * gpu.KERNELS * gpu.KERNEL
    assert clock(gpu.work) == pytest.approx(gpu.KERNELS * gpu.KERNEL)
    began = gpu.host
    clock(gpu.work)
    assert gpu.host - began < 0.01


def test_the_time_limit_leaves_at_least_three_rounds() -> None:
    assert len(interleave([lambda: time.sleep(0.01) or 0.0], rounds=50, warmup=0, seconds=0.0)) == 3


def test_the_interval_of_the_median_covers_it_often_enough() -> None:
    draw = np.random.default_rng(0)
    for n in (6, 9, 20, 41):
        samples = np.exp(draw.normal(size=(4000, n)))  # true median 1
        found = [median_interval(sample) for sample in samples]
        covered = np.mean([each.low <= 1.0 <= each.high for each in found])
        assert covered >= 0.94
        assert covered < 0.995 or n == 6


def test_few_values_give_their_whole_range() -> None:
    found = median_interval(np.array([3.0, 1.0, 2.0]))
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)


def test_quantiles_are_deciles() -> None:
    found = quantiles(np.arange(11.0))
    assert math.isclose(found.p10, 1) and math.isclose(found.p50, 5) and math.isclose(found.p90, 9)


def test_tables_align_numbers_to_the_right() -> None:
    assert table(["a", "long"], [["name", "1"], ["b", "22"]]).splitlines() == [
        "a     long",
        "name     1",
        "b       22",
    ]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_an_interval_never_leaves_the_values(n: int) -> None:
    values = np.arange(float(n))
    found = median_interval(values)
    assert found.low == values[0] and found.high == values[-1]

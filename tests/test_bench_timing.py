"""Interleaved timing and its intervals."""

from __future__ import annotations

import math
import time

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

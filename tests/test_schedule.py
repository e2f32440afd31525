"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import itertools
import math

import pytest

from mhc_bench.config.schema import ScheduleConfig
from mhc_bench.training.schedule import multiplier

STEPS = 100


def test_warmup_rises_linearly_and_is_complete_in_its_last_step() -> None:
    schedule = ScheduleConfig(shape="constant", warmup=0.1)
    assert [multiplier(schedule, step, STEPS) for step in range(12)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0]
    )


def test_a_warmup_from_one_on_counts_steps() -> None:
    assert multiplier(ScheduleConfig(warmup=4), 1, STEPS) == pytest.approx(0.5)


def test_cosine_passes_the_middle_at_half_way_and_ends_on_its_floor() -> None:
    schedule = ScheduleConfig(shape="cosine", warmup=20, floor=0.1)
    assert multiplier(schedule, 59, STEPS) == pytest.approx(0.55)
    assert multiplier(schedule, 39, STEPS) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert multiplier(schedule, 99, STEPS) == pytest.approx(0.1)


def test_linear_falls_by_equal_amounts_to_its_floor() -> None:
    schedule = ScheduleConfig(shape="linear", warmup=0.0, floor=0.2)
    values = [multiplier(schedule, step, STEPS) for step in range(STEPS)]
    assert values[-1] == pytest.approx(0.2)
    assert {round(a - b, 9) for a, b in itertools.pairwise(values)} == {0.008}


def test_wsd_is_flat_until_its_decay_begins() -> None:
    schedule = ScheduleConfig(shape="wsd", warmup=0.05, floor=0.0, decay_from=0.8)
    assert [multiplier(schedule, step, STEPS) for step in (5, 50, 79)] == [1.0, 1.0, 1.0]
    assert multiplier(schedule, 89, STEPS) == pytest.approx(0.5)
    assert multiplier(schedule, 99, STEPS) == pytest.approx(0.0)


@pytest.mark.parametrize("steps", [10, 100, 30_000, 49_999])
def test_the_papers_step_schedule_drops_at_four_fifths_and_nine_tenths(steps: int) -> None:
    schedule = ScheduleConfig(shape="step", warmup=1, drops={0.8: 0.316, 0.9: 0.1})
    values = [multiplier(schedule, step, steps) for step in range(steps)]
    first, second = math.ceil(steps * 8 / 10), math.ceil(steps * 9 / 10)
    assert set(values[:first]) == {1.0}
    assert set(values[first:second]) == {0.316}
    assert set(values[second:]) == {0.1}


@pytest.mark.parametrize("shape", ["constant", "cosine", "linear", "wsd", "step"])
def test_a_schedule_stays_between_zero_and_one_even_when_the_warmup_outlasts_the_run(shape: str) -> None:
    schedule = ScheduleConfig(shape=shape, warmup=200)  # type: ignore[arg-type]
    assert all(0 < multiplier(schedule, step, STEPS) <= 1 for step in range(STEPS))

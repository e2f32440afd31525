"""Learning-rate multipliers: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mhc_bench.config.schema import ScheduleConfig

_SLACK = 1e-9
"""0.9 * 10 may come out a hair above 9: a step that lies on a boundary belongs to what follows."""


def multiplier(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied by in `step` (from 0) of `steps`.

    The warm-up rises linearly and reaches 1 in its last step; cosine, linear and wsd reach `floor` in the
    last step of all.
    """
    warmup = warmup_steps(schedule, steps)
    if step < warmup:
        return (step + 1) / warmup
    done = step + 1
    if schedule.shape == "cosine":
        share = _share(done, warmup, steps)
        return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * share)) / 2
    if schedule.shape == "linear":
        return 1 - (1 - schedule.floor) * _share(done, warmup, steps)
    if schedule.shape == "wsd":
        start = max(warmup, math.ceil(schedule.decay_from * steps - _SLACK))
        return 1 - (1 - schedule.floor) * _share(done, start, steps)
    return _dropped(schedule.drops, step, steps) if schedule.shape == "step" else 1.0


def warmup_steps(schedule: ScheduleConfig, steps: int) -> int:
    """Length of the warm-up: a fraction of all steps below 1, a number of steps from 1 on."""
    return round(schedule.warmup * steps) if schedule.warmup < 1 else int(schedule.warmup)


def _share(done: int, start: int, end: int) -> float:
    """How much of the way from `start` to `end` lies behind, 0 to 1."""
    return min(1.0, max(0.0, (done - start) / max(1, end - start)))


def _dropped(drops: Mapping[float, float], step: int, steps: int) -> float:
    """The multiplier of the latest drop that has been reached; 1 before the first."""
    reached = [start for start in drops if step >= start * steps - _SLACK]
    return drops[max(reached)] if reached else 1.0

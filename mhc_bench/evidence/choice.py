"""The rule of the tuned track: which point of the grid the trials of a variant choose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mhc_bench.evidence.parts import Trial

Point = tuple[float, float]
"""Learning rate and weight decay."""


def point(trial: Trial) -> Point:
    """The point of the grid that a trial is of."""
    return trial.learning_rate, trial.weight_decay


def mean_losses(trials: Sequence[Trial]) -> dict[Point, float]:
    """Each point's loss, mean over its trials, in the order of the trials; infinite where one diverged."""
    losses: dict[Point, list[float]] = {}
    for trial in trials:
        losses.setdefault(point(trial), []).append(math.inf if trial.loss is None else trial.loss)
    return {each: math.fsum(values) / len(values) for each, values in losses.items()}


def chosen(trials: Sequence[Trial]) -> Point:
    """The point with the lowest mean loss; of equal ones the first.

    Raises:
        ValueError: no trial.
    """
    losses = mean_losses(trials)
    return min(losses, key=lambda each: losses[each])


def grid_size(configuration: Mapping[str, Any]) -> int:
    """How many trials a resolved configuration asks for."""
    search = configuration["search"]
    return len(search["learning_rates"]) * max(1, len(search["weight_decays"])) * len(search["seeds"])


def grid_of(configuration: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """The trials that a resolved configuration asks for: learning rate, weight decay and seed of each."""
    search, optimizer = configuration["search"], configuration["optimizer"]
    decays = search["weight_decays"] or [optimizer["weight_decay"]]
    return list(itertools.product(search["learning_rates"], decays, search["seeds"]))

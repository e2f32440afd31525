"""The tuned track: the trials of a suite as a suite of their own, and what a run trains with in the end."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from mhc_bench.config.parts import merge
from mhc_bench.config.schema import OptimizerConfig, RunConfig, SearchConfig, SuiteConfig, TuningConfig

SEARCH = "-search"
"""What is added to a suite's name for that of its trials."""
OF_A_TRIAL = {"data": {"validation_split": "selection"}, "evaluation": {"tasks": []}}
"""In what, besides the values of the grid, a trial's protocol differs from that of the runs."""


def search_suite(suite: SuiteConfig) -> SuiteConfig | None:
    """The trials of a suite as a study with an arm for each point of the grid; None in the fixed track."""
    if suite.search is None:
        return None
    return dataclasses.replace(
        suite,
        name=f"{suite.name}{SEARCH}",
        description=f"the trials of {suite.name}",
        note=f"Trials of the tuned track of {suite.name}, on the selection split: no results.",
        tuning=TuningConfig(),
        search=None,
        seeds=suite.search.seeds,
        arms={name: content for name, (_, content) in trial_arms(suite).items()},
    )


def trial_arms(suite: SuiteConfig) -> dict[str, tuple[str, dict[str, Any]]]:
    """Arm of the study of the trials -> the suite's own arm that it serves, and its fields.

    The grid's points are in the order in which ties are decided.
    """
    assert suite.search is not None
    return {
        "-".join(filter(None, (arm, name))): (arm, merge(merge(content, OF_A_TRIAL), {"optimizer": values}))
        for arm, content in (suite.arms or {"": {}}).items()
        for name, values in grid(suite.search).items()
    }


def grid(search: SearchConfig) -> dict[str, dict[str, float]]:
    """Name of each point of the grid -> the optimizer's fields that it sets."""
    names, values = ["learning_rate"], [search.learning_rates]
    if search.weight_decays:
        names, values = [*names, "weight_decay"], [*values, search.weight_decays]
    points = [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]
    short = {"learning_rate": "lr", "weight_decay": "wd"}
    return {"-".join(f"{short[name]}-{value}" for name, value in point.items()): point for point in points}


def optimizer_of(run: RunConfig) -> OptimizerConfig:
    """What a run trains with: the protocol's optimizer, with the chosen values where they are known."""
    return run.optimizer if run.tuned is None else dataclasses.replace(run.optimizer, **vars(run.tuned))

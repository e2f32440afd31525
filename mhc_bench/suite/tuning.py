"""The tuned track: a suite's trials, and what they choose for its runs once they are finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from mhc_bench.config import RunConfig, SuiteConfig, TunedConfig, run_configs, run_folder, search_suite
from mhc_bench.config.search import trial_arms
from mhc_bench.evidence import read_record
from mhc_bench.evidence.choice import chosen
from mhc_bench.evidence.parts import Trial, Tuning
from mhc_bench.suite.state import RECORD_FILE, read_state

Place = tuple[str, str]
"""Arm and variant."""


def stages(suite: SuiteConfig) -> list[SuiteConfig]:
    """What is run one after the other: in the tuned track the trials, then the suite itself."""
    trials = search_suite(suite)
    return [suite] if trials is None else [trials, suite]


def tunings(suite: SuiteConfig, root: Path) -> dict[Place, Tuning]:
    """What was spent on choosing the values of each arm's variants.

    In the tuned track those whose trials have not all finished are left out.

    Raises:
        RunError: a trial's record is damaged.
    """
    trials = search_suite(suite)
    if trials is None:
        spent = Tuning(**dataclasses.asdict(suite.tuning))
        return {(arm, variant): spent for arm in suite.arms or [""] for variant in suite.variants}
    served, groups = trial_arms(suite), dict[Place, list[RunConfig]]()
    for run in run_configs(trials):
        groups.setdefault((served[run.arm][0], run.variant_name), []).append(run)
    return {
        place: Tuning(runs=len(runs), suite=trials.name, trials=tuple(_trial(run, root) for run in runs))
        for place, runs in groups.items()
        if all(read_state(run_folder(root, run)).finished for run in runs)
    }


def settled(runs: Iterable[RunConfig], known: dict[Place, Tuning]) -> list[RunConfig]:
    """The runs whose values are known, with those values."""
    found = [(run, known.get((run.arm, run.variant_name))) for run in runs]
    return [_settled(run, tuning) for run, tuning in found if tuning is not None]


def _settled(run: RunConfig, tuning: Tuning) -> RunConfig:
    if run.search is None:
        return run
    return dataclasses.replace(run, tuned=TunedConfig(*chosen(tuning.trials)))


def _trial(run: RunConfig, root: Path) -> Trial:
    record = read_record(run_folder(root, run) / RECORD_FILE)
    return Trial(
        learning_rate=run.optimizer.learning_rate,
        weight_decay=run.optimizer.weight_decay,
        seed=run.seed,
        loss=record.validation_loss,
        record=record.digest,
    )

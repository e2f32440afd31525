"""The tuned track's rule, grid and selection split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import (
    TunedConfig,
    WorldConfig,
    load_suite,
    optimizer_of,
    part_names,
    protocol_id,
    run_configs,
    search_suite,
)
from mhc_bench.data.windows import validation_starts
from mhc_bench.data.world.source import WorldSource
from mhc_bench.errors import UsageError
from mhc_bench.evidence.choice import chosen, mean_losses
from mhc_bench.evidence.parts import Trial
from mhc_bench.training import fit


def trial(rate: float, loss: float | None, decay: float = 0.1, seed: int = 7) -> Trial:
    return Trial(learning_rate=rate, weight_decay=decay, seed=seed, loss=loss, record="a" * 64)


def test_the_rule_takes_the_lowest_mean_counts_a_diverged_trial_as_infinite_and_ties_by_order() -> None:
    assert chosen([trial(1.0, 2.0), trial(2.0, 1.5), trial(3.0, 1.9)]) == (2.0, 0.1)
    one_good = [trial(1.0, 0.1), trial(1.0, None, seed=8), trial(2.0, 5.0), trial(2.0, 6.0, seed=8)]
    assert chosen(one_good) == (2.0, 0.1)
    assert mean_losses(one_good) == {(1.0, 0.1): float("inf"), (2.0, 0.1): 5.5}
    assert chosen([trial(3.0, 1.0), trial(2.0, 1.0, decay=0.0)]) == (3.0, 0.1)
    assert chosen([trial(3.0, None), trial(2.0, None)]) == (3.0, 0.1)


def test_the_grid_and_the_rule_are_in_the_protocol_and_the_chosen_values_are_not() -> None:
    run = run_configs(load_suite("quick-tuned"))[0]
    other = dataclasses.replace(run, tuned=TunedConfig(learning_rate=0.016, weight_decay=0.2))
    assert run.search is not None and protocol_id(run) == protocol_id(other)
    for change in ({"seeds": [8]}, {"learning_rates": [1e-3]}, {"weight_decays": [0.1, 0.2]}):
        search = dataclasses.replace(run.search, **change)
        assert protocol_id(dataclasses.replace(run, search=search)) != protocol_id(run)
    assert protocol_id(dataclasses.replace(run, search=None)) != protocol_id(run)


def test_arms_of_a_study_have_trials_of_their_own() -> None:
    overrides = ["search.learning_rates=[0.01]", "search.seeds=[9]"]
    suite = load_suite("stress", ["optimizer.learning_rate=0.01", "arms=[lr-0.01-clip-1]", *overrides])
    trials = search_suite(suite)
    assert trials is not None and list(trials.arms) == ["lr-0.01-clip-1-lr-0.01"]
    assert all(optimizer_of(run) == run.optimizer for run in run_configs(trials))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["search.seeds=[5]"], "search.learning_rates"),
        (["search.learning_rates=[0.1]", "search.seeds=[5]"], "optimizer.learning_rate = 0.004 among them"),
        (["search.learning_rates=[0.004,0.004]", "search.seeds=[5]"], "different values"),
        (["search.learning_rates=[0.004,-1.0]", "search.seeds=[5]"], "a positive number"),
        (["search.learning_rates=[0.004]", "search.seeds=[]"], "at least one seed"),
        (["search.learning_rates=[0.004]", "search.seeds=[0]"], "none of the runs' own seeds, not [0]"),
        (
            ["search.learning_rates=[0.004]", "search.seeds=[5]", "search.weight_decays=[0.2]"],
            "0.1 among them",
        ),
        (["search.learning_rates=[0.004]", "search.seeds=[5]", "search.rule=best"], "search.rule"),
        (["data.validation_split=test"], "validation_split"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_line(overrides: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_configs(load_suite("smoke", overrides))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_the_selection_split_of_the_world_has_rows_of_its_own() -> None:
    reported = WorldSource(WorldConfig(validation_tokens=640)).validation_rows(65)
    selection = WorldSource(WorldConfig(validation_tokens=640, validation_split="selection")).validation_rows(
        65
    )
    assert selection.shape == reported.shape
    assert not {row.tobytes() for row in reported} & {row.tobytes() for row in selection}


def test_the_selection_split_of_a_text_has_windows_of_its_own_or_is_refused() -> None:
    reported = validation_starts(1001, 11, 400, "validation")
    selection = validation_starts(1001, 11, 400, "selection")
    assert len(reported) == len(selection) == 40 and not set(reported) & set(selection)
    assert selection.max() + 11 <= 1001 and np.all(np.diff(selection) == 10)
    assert len(validation_starts(1001, 11, 600, "validation")) == 60
    with pytest.raises(UsageError, match="100 rows are held out, expected 120"):
        validation_starts(1001, 11, 600, "selection")


def test_quick_tuned_compares_what_quick_compares_with_the_rate_of_quick_among_the_trials() -> None:
    quick, own = load_suite("quick"), load_suite("quick-tuned")
    assert (own.variants, own.seeds) == (quick.variants, quick.seeds)
    assert own.search is not None and quick.optimizer.learning_rate in own.search.learning_rates
    assert protocol_id(dataclasses.replace(own, search=None)) == protocol_id(quick)
    assert "quick-tuned" in part_names("suites")


def test_too_little_text_for_a_selection_split_is_refused_before_training(tmp_path: Path) -> None:
    run = tiny_run(write_corpus(tmp_path / "corpus"), data__validation_split="selection")
    run.data.validation_tokens = 10**6
    with pytest.raises(UsageError, match=r"data\.validation_split is selection"):
        fit(run, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()

"""The simulated coverage that pages print: made by the shipped intervals, as good as it says, kept fresh."""

from __future__ import annotations

import json
import math
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from evidence_factory import make_record, suite_records
from scipy import stats

from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.statistics import coverage as simulation
from mhc_bench.evidence.statistics.coverage import ANY_TASK, BY_SEED, FILE, NOMINAL, Share, observed, simulate
from mhc_bench.evidence.uncertainty import coverage

TOO_SURE = "one task that jumps, three times as often in one"
"""The case in which a t interval of few seeds fails."""
KEPT = [share for shares in observed().values() for share in shares]


def test_the_table_has_every_case_for_every_number_of_seeds() -> None:
    assert len(KEPT) == len(simulation.SEEDS) * (len(BY_SEED) + 3)
    content = json.loads(FILE.read_text(encoding="utf-8"))
    assert content["command"] == simulation.COMMAND
    assert content["seed"] == simulation.SEED
    assert set(content["trials"].values()) == {simulation.TRIALS, simulation.CROSSED_TRIALS}


def test_the_module_run_as_a_command_writes_a_table_of_the_same_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "FILE", tmp_path / "coverage.json")
    monkeypatch.setattr(simulation, "simulate", lambda: KEPT)
    simulation.main()
    written, kept = (
        json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "coverage.json", FILE)
    )
    assert (tmp_path / "coverage.json").read_text(encoding="utf-8").startswith('{\n "command"')
    today = {"date": date.today().isoformat(), "versions": {name: version(name) for name in kept["versions"]}}
    assert written == {**kept, **today}


def test_the_table_is_what_the_intervals_of_today_give() -> None:
    """With other random numbers and fewer trials."""
    again = {(share.case, share.n): share for share in simulate(3000, 400, seed=7)}
    for kept in KEPT:
        new = again[kept.case, kept.n]
        trials = 3000 if kept.case in BY_SEED else 400
        for old, found in ((kept.coverage, new.coverage), (kept.better, new.better)):
            assert (old is None) == (found is None), kept
            if old is not None and found is not None:
                assert abs(old - found) < 4.5 * math.sqrt(max(old * (1 - old), 0.01) / trials), kept


def test_the_same_seed_gives_the_same_shares_and_another_one_others() -> None:
    first, second, other = simulate(20, 5, seed=1), simulate(20, 5, seed=1), simulate(20, 5, seed=2)
    assert first == second != other


def test_shares_are_counted_from_none() -> None:
    for seed in range(10):
        for share in simulate(1, 1, seed=seed):
            assert {share.coverage, share.better} <= {None, 0.0, 1.0}
    never = [simulation.any_task(np.random.default_rng(seed), 5, 1).better for seed in range(20)]
    assert never.count(0.0) >= 15


def test_a_share_worked_by_hand() -> None:
    # wholly above 0, around 0, wholly below
    sample = np.array([[1.0, 1.1, 1.2], [-1.0, 0.0, 1.5], [-1.2, -1.1, -1.0]])
    found = simulation.by_seed(np.random.default_rng(0), 3, lambda _, shape: sample, True, "some", 3)
    assert found == Share("some", 3, 1 / 3, 1 / 3)
    assert simulation.by_seed(
        np.random.default_rng(0), 3, lambda _, shape: sample, False, "some", 3
    ) == Share("some", 3, 1 / 3, None)


@pytest.mark.parametrize(("factor", "called"), [(0.98, 0.0), (1.02, 1.0), (-1.02, 0.0)])
def test_a_task_is_called_better_from_the_corrected_level_on(
    factor: float, called: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of eight tasks has a mean next to the critical value of its t statistic, the others have none."""
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    values /= values.std(ddof=1)
    sample = np.tile(values, (1, simulation.TASKS, 1))
    sample[0, 3] += factor * stats.t.ppf(1 - 0.05 / (2 * simulation.TASKS), 4) / math.sqrt(5)
    monkeypatch.setattr(simulation, "jumps", lambda *_: sample)
    assert simulation.any_task(np.random.default_rng(0), 5, 1) == Share(ANY_TASK, 5, None, called)


@pytest.mark.parametrize("learned", [simulation.EVEN, simulation.FIRST_LEADS])
def test_what_is_drawn_has_the_mean_and_the_sd_that_it_says(learned: tuple[float, float]) -> None:
    shape = (40_000, 3)
    ours, theirs = learned
    sd = math.sqrt(simulation.JUMP**2 * (ours * (1 - ours) + theirs * (1 - theirs)) + 2 * simulation.BLUR**2)
    for draw, expected in (
        (partial(simulation.jumps, learned=learned), sd),
        (partial(simulation.mean_of_jumps, learned=learned), sd / math.sqrt(simulation.TASKS)),
        (simulation.gaussian, simulation.LOSS_SD),
    ):
        sample = draw(np.random.default_rng(3), shape)
        assert sample.shape == shape
        assert abs(sample.mean()) < 5 * expected / math.sqrt(sample.size)
        assert sample.std() == pytest.approx(expected, rel=0.02)
        # seeds are independent
        assert np.abs(np.corrcoef(sample.T) - np.eye(3)).max() < 0.03


def test_a_jump_is_a_run_that_has_learned_a_task_where_the_other_has_not() -> None:
    sample = simulation.jumps(np.random.default_rng(3), (40_000,), simulation.FIRST_LEADS)
    shift = simulation.JUMP * (0.75 - 0.25)
    learned = [float(np.mean(np.abs(sample + shift - at) < simulation.JUMP / 2)) for at in (-0.3, 0, 0.3)]
    assert learned == pytest.approx([0.25 * 0.25, 2 * 0.75 * 0.25, 0.75 * 0.75], abs=0.01)


@pytest.mark.parametrize("share", KEPT, ids=lambda share: f"{share.n} seeds: {share.case}")
def test_intervals_hold_what_they_promise_but_where_the_page_says_otherwise(share: Share) -> None:
    if share.coverage is not None and share.case != TOO_SURE:
        assert NOMINAL[0] <= share.coverage <= NOMINAL[1]
    if share.better is not None and share.case != ANY_TASK:
        assert share.better <= 0.05
    if share.case == ANY_TASK and share.n >= 5:
        assert share.better is not None and share.better <= 0.05


def test_with_three_seeds_a_task_learned_in_jumps_is_told_too_surely_and_the_page_prints_the_figure() -> None:
    (share,) = (share for share in KEPT if (share.case, share.n) == (TOO_SURE, 3))
    assert share.coverage is not None and share.coverage < 0.85
    (arm,) = collate(suite_records()).arms
    (row,) = (row for row in coverage(arm).rows if row[0] == TOO_SURE)
    assert row[-1] == f"too sure: holds the truth in {100 * share.coverage:.1f} % of cases, not 95 %"


def test_why_tasks_have_no_verdict_below_five_seeds_stands_on_the_page() -> None:
    (arm,) = collate(suite_records()).arms
    (row,) = (row for row in coverage(arm).rows if row[0] == ANY_TASK)
    assert row[-1] == "too often: no task gets a verdict below 5 seeds"


@pytest.mark.parametrize(("seeds", "shown"), [(2, 3), (3, 3), (4, 3), (7, 5), (12, 8)])
def test_a_page_prints_the_figures_of_its_own_number_of_seeds_or_the_next_smaller(
    seeds: int, shown: int
) -> None:
    records = [
        make_record(name, seed, loss=1.0 + seed) for name in ("baseline", "hc") for seed in range(seeds)
    ]
    (arm,) = collate(records).arms
    assert f"Simulated with {shown} seeds" in coverage(arm).caption
    assert f"this table has {seeds}" in coverage(arm).caption

"""The simulated coverage that pages print: made by the shipped intervals, as good as it says, kept fresh."""

from __future__ import annotations

import json
import math
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest
from evidence_factory import make_record, suite_records

from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.statistics import coverage as simulation
from mhc_bench.evidence.statistics.coverage import ANY_TASK, BY_SEED, FILE, NOMINAL, Share, observed, simulate
from mhc_bench.evidence.uncertainty import coverage

TOO_SURE = "one task that jumps, three times as often in one"
"""The case in which a t interval of few seeds fails."""
KEPT = [share for shares in observed().values() for share in shares]


@pytest.fixture(scope="module")
def again() -> dict[tuple[str, int], Share]:
    """The same cases with other random numbers and fewer trials."""
    return {(share.case, share.n): share for share in simulate(3000, 400, seed=7)}


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
    today = {"date": date.today().isoformat(), "versions": {name: version(name) for name in kept["versions"]}}
    assert written == {**kept, **today}


@pytest.mark.parametrize("kept", KEPT, ids=lambda share: f"{share.n} seeds: {share.case}")
def test_the_table_is_what_the_intervals_of_today_give(
    kept: Share, again: dict[tuple[str, int], Share]
) -> None:
    new = again[kept.case, kept.n]
    trials = 3000 if kept.case in BY_SEED else 400
    for old, found in ((kept.coverage, new.coverage), (kept.better, new.better)):
        assert (old is None) == (found is None)
        if old is not None and found is not None:
            assert abs(old - found) < 4.5 * math.sqrt(max(old * (1 - old), 0.01) / trials)


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

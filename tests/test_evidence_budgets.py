"""Equal tokens, FLOPs, wall-clock time and memory: on curves with known values, and on published runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from evidence_factory import SEEDS, STEPS, edited, make_record

from mhc_bench.evidence import LOSS, Record, load_board, read_records
from mhc_bench.evidence.budgets import AtBudget, at_equal_budgets, loss_at
from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.uncertainty import budgets

RECORDS = Path(__file__).parent.parent / "results" / "records" / "quick-cc4f49c1b1"
OFFSETS = {0: 0.0, 1: 0.02, 2: 0.01}
"""What the runs of the variant lie above 5 - step / 100, beside what the baseline does."""


def falling(variant: str, seed: int, offset: float = 0.0, until: int = STEPS) -> Record:
    """A run whose loss in step k is 5 - k / 100 + offset; a point of its curve is the mean of five steps."""
    record = make_record(variant, seed, loss=1.0, diverged=None if until == STEPS else until)
    steps = list(range(5, until + 1, 5))
    values = [5 - (step - 2) / 100 + offset for step in steps]
    curves = {LOSS: {"steps": steps, "values": values}}
    return edited(record, mechanism={"curves": curves})


def costing(record: Record, flops: int = 1_800_000, memory: int = 512 * 2**20) -> Record:
    return edited(record, training={"flops_per_token": flops, "peak_memory_bytes": memory})


def compared(ours: list[Record], theirs: list[Record]) -> dict[str, AtBudget]:
    (arm,) = collate([*theirs, *ours]).arms
    return {found.budget: found for found in at_equal_budgets(arm, arm.rows[1])}


def baseline() -> list[Record]:
    return [costing(falling("baseline", seed)) for seed in SEEDS]


def test_the_loss_at_a_point_is_the_mean_over_the_twentieth_of_a_run_before_it() -> None:
    record = falling("baseline", 0)
    # 120 steps: a window of 6; at step 60 that is steps 55 to 60, of which 54 to 55 is a whole stretch's mean
    inside = (5 * (5 - 58 / 100) + 1 * (5 - 53 / 100)) / 6
    assert loss_at(record, 0.5) == pytest.approx(inside)
    assert loss_at(record, 5 / 120) == pytest.approx(5 - 3 / 100)
    assert loss_at(record, 2 / 120) == pytest.approx(5 - 3 / 100)


def test_at_the_end_of_a_published_run_it_is_the_final_loss_of_its_record() -> None:
    for record in read_records(RECORDS):
        assert record.training is not None and record.training.final_loss is not None
        assert loss_at(record, 1.0) == pytest.approx(record.training.final_loss, rel=1e-9)


def test_flops_that_were_counted_by_two_rules_are_not_compared() -> None:
    by = {
        rule: [edited(falling("hc", seed), training={"flops_rule": rule}) for seed in SEEDS]
        for rule in (1, 2)
    }
    base = [edited(run, training={"flops_rule": 2}) for run in baseline()]
    assert compared(by[1], base)["FLOPs"].note.startswith("not comparable: counted by two rules")
    assert compared(by[2], base)["FLOPs"].note == "counted FLOPs per token"
    assert "rule 1" in compared(by[1], baseline())["FLOPs"].note
    assert compared(by[1], base)["tokens"].difference is not None


def test_with_twice_the_flops_the_variant_is_read_at_half_of_its_training() -> None:
    ours = [costing(falling("hc", seed, OFFSETS[seed]), flops=3_600_000) for seed in SEEDS]
    found = compared(ours, baseline())["FLOPs"]
    assert (found.relative_cost, found.reached) == (2.0, (0.5, 1.0))
    gap = loss_at(falling("hc", 0), 0.5)
    end = loss_at(falling("baseline", 0), 1.0)
    assert gap is not None and end is not None and found.difference is not None
    assert found.difference.mean == pytest.approx(gap - end + 0.01)
    assert found.difference.sd == pytest.approx(0.01)


def test_a_cheaper_variant_has_the_baseline_read_earlier() -> None:
    ours = [costing(falling("hc", seed), flops=900_000) for seed in SEEDS]
    assert compared(ours, baseline())["FLOPs"].reached == (1.0, 0.5)


def test_time_is_the_ratio_of_the_steps_that_were_taken_in_turn() -> None:
    # the factory's hc takes 1.7 times the baseline's step, whatever its runs took
    found = compared([falling("hc", seed) for seed in SEEDS], baseline())["wall-clock time"]
    assert found.relative_cost == pytest.approx(1.7)
    assert found.reached == pytest.approx((1 / 1.7, 1.0))
    assert "in turn" in found.note


def test_equal_tokens_takes_both_runs_whole() -> None:
    found = compared([falling("hc", seed, OFFSETS[seed]) for seed in SEEDS], baseline())["tokens"]
    assert found.reached == (1.0, 1.0)
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(0.01)


@pytest.mark.parametrize(("factor", "overlaps"), [(1.01, True), (1.31, False), (0.8, False)])
def test_more_memory_at_every_step_leaves_no_overlap(factor: float, overlaps: bool) -> None:
    ours = [costing(falling("hc", seed), memory=int(factor * 512 * 2**20)) for seed in SEEDS]
    found = compared(ours, baseline())["peak memory"]
    assert (found.difference is not None) == overlaps
    expected = (
        "equal within 2 %" if overlaps else f"no overlap: these runs take {factor:.2f} times the memory"
    )
    assert expected in found.note


def test_a_run_that_ended_before_the_budget_is_no_pair() -> None:
    ours = [falling("hc", seed, until=70 if seed == 2 else STEPS) for seed in SEEDS]
    found = compared(ours, baseline())
    assert found["tokens"].difference is not None and found["tokens"].difference.unpaired == (2,)
    # at 1 / 1.7 of its 120 steps the run that ended after 70 is just not there
    assert found["wall-clock time"].difference is not None
    assert found["wall-clock time"].difference.n == 2


def test_no_run_that_far_is_told_as_no_overlap() -> None:
    found = compared([falling("hc", seed, until=50) for seed in SEEDS], baseline())["tokens"]
    assert found.note == "no overlap: the loss curves do not reach this budget"
    assert found.difference is not None and found.difference.mean is None


def test_what_was_not_measured_or_is_not_comparable_says_so() -> None:
    unmeasured = [edited(falling("hc", seed), cost={"step_time": None}) for seed in SEEDS]
    assert compared(unmeasured, baseline())["wall-clock time"].note == "not measured"
    elsewhere = [edited(falling("hc", seed), identity={"cost_id": "ffffffffff"}) for seed in SEEDS]
    found = compared(elsewhere, baseline())
    assert found["wall-clock time"].note == found["peak memory"].note == "not comparable: 2 cost ids"
    assert found["FLOPs"].difference is not None


def test_a_loss_that_was_not_finite_has_no_place_in_a_mean() -> None:
    record = edited(
        falling("hc", 0), mechanism={"curves": {LOSS: {"steps": [60, 120], "values": [3.0, None]}}}
    )
    assert loss_at(record, 1.0) is None


def test_the_table_groups_rows_by_budget_and_gives_shares_and_words() -> None:
    arm = load_board(RECORDS).arms[0]
    rows = budgets(arm).rows
    assert [row[0] for row in rows[::2]] == ["tokens", "FLOPs", "wall-clock time", "peak memory"]
    flops = next(row for row in rows if row[:2] == ("FLOPs", "mhc"))
    (mhc,) = {run.training.flops_per_token for run in arm.rows[2].runs.values() if run.training}
    (base,) = {run.training.flops_per_token for run in arm.rows[0].runs.values() if run.training}
    assert flops[2] == f"{mhc / base:.2f}"
    assert flops[3] == f"{math.floor(100 * base / mhc + 0.5)} %, 100 %"
    low, high = map(float, flops[6].strip("()").split(","))
    assert flops[8].startswith("worse" if low > 0 else "better" if high < 0 else "not shown")

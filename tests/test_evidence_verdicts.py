"""Verdicts in words: on measures that stand alone, and on tasks that are looked at together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidence_factory import make_evidence
from scipy import stats

from mhc_bench.evidence import Record, assemble_record
from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.collate import Arm, Cell, collate
from mhc_bench.evidence.statistics import paired_difference
from mhc_bench.evidence.statistics.power import seeds_needed
from mhc_bench.evidence.verdicts import Adjusted, judge, judge_task

NOTHING = dict.fromkeys(range(9), 0.0)


def against_nothing(*values: float) -> object:
    return paired_difference(dict(enumerate(values)), NOTHING, higher_is_better=True)


def scored(variant: str, seed: int, **scores: float) -> Record:
    """A run whose tasks have the given scores, and one more than those of the factory."""
    evidence = make_evidence(variant, seed, loss=1.0)
    assert evidence.evaluation is not None
    tasks = {
        f"world_{name}": {**evidence.evaluation["tasks"]["world_bbh"], "value": value}
        for name, value in scores.items()
    }
    return assemble_record(replace(evidence, evaluation={**evidence.evaluation, "tasks": tasks}))


CLEAR = (0.20, 0.21, 0.19, 0.20, 0.22)
FAINT = (0.03, 0.06, 0.05, 0.00, 0.02)
NONE = (0.10, -0.12, 0.09, -0.08, 0.05)


def arm_of(seeds: int) -> Arm:
    """Three tasks: one clear gain, one that a single test would show, one without."""
    base = [scored("baseline", seed, drop=0.4, gsm=0.4, math=0.4) for seed in range(seeds)]
    gains = zip(CLEAR[:seeds], FAINT[:seeds], NONE[:seeds], strict=True)
    ours = [scored("hc", k, drop=0.4 + a, gsm=0.4 + b, math=0.4 + c) for k, (a, b, c) in enumerate(gains)]
    return collate([*base, *ours]).arms[0]


def cells(arm: Arm) -> dict[str, Cell]:
    return {one.title: arm.cell(arm.rows[1], one) for one in q.task_quantities(arm.tasks, q.SCORES)}


def test_a_task_is_judged_by_its_corrected_p_alone() -> None:
    found = cells(arm_of(5))
    single = {name: cell.difference.p for name, cell in found.items() if cell.difference}
    for name, gains in (("world_drop", CLEAR), ("world_gsm", FAINT), ("world_math", NONE)):
        assert single[name] == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    assert single["world_gsm"] is not None and single["world_gsm"] < 0.05
    assert [cell.adjusted.p for cell in found.values() if cell.adjusted] == pytest.approx(
        [
            3 * single["world_drop"],
            2 * single["world_gsm"],
            max(2 * single["world_gsm"], single["world_math"]),
        ]
    )
    assert found["world_drop"].verdict == "better"
    assert (found["world_gsm"].outcome, found["world_math"].outcome) == ("not shown", "not shown")


def test_what_a_task_would_need_is_reckoned_at_the_corrected_level() -> None:
    cell = cells(arm_of(5))["world_gsm"]
    assert cell.difference is not None and cell.difference.mean and cell.difference.sd
    needed = seeds_needed(cell.difference.mean / cell.difference.sd, 0.05 / 3)
    assert needed is not None and needed > 5
    assert cell.verdict == f"not shown (would need about {needed} seeds)"
    assert cell.seeds_needed == needed


def test_below_five_seeds_no_task_has_a_verdict_however_clear() -> None:
    for cell in cells(arm_of(4)).values():
        assert (cell.verdict, cell.outcome) == ("no verdict below 5 seeds", "no verdict")
        assert cell.difference is not None and cell.difference.low is not None
        assert cell.adjusted is not None


def test_the_mean_over_tasks_stands_alone_and_needs_no_correction() -> None:
    arm = arm_of(3)
    mean = arm.cell(arm.rows[1], q.score_quantity(tuple(arm.tasks)))
    assert mean.adjusted is None
    assert mean.outcome in ("better", "not shown")


def test_scores_and_gold_answers_are_families_of_their_own() -> None:
    arm = arm_of(5)
    gold = arm.cell(arm.rows[1], q.task_gold_quantity("world_drop"))
    assert gold.adjusted is not None and gold.adjusted.tests == 3


def test_what_was_not_shown_says_how_many_seeds_it_would_take() -> None:
    found = against_nothing(0.1, 0.3, -0.1)
    needed = seeds_needed(0.1 / 0.2)
    assert judge(found).words == f"not shown (would need about {needed} seeds)"
    assert judge(against_nothing(1.0, -1.0, 0.01)).words == "not shown (would need more than 1000 seeds)"
    assert judge(against_nothing(0.0, 0.0)).words == "not shown (no difference at all)"


def test_a_task_that_all_seeds_agree_on_exactly_has_no_verdict() -> None:
    found = against_nothing(0.5, 0.5, 0.5, 0.5, 0.5)
    assert judge_task(found, None).outcome == "no verdict"
    assert judge_task(against_nothing(0.5), None).words == "one seed, no interval"


def test_a_clear_difference_in_the_wrong_direction_is_worse() -> None:
    found = against_nothing(-0.5, -0.51, -0.52, -0.5, -0.49)
    assert judge_task(found, Adjusted(0.001, 8)).words == "worse"


def test_the_chance_centred_mean_counts_guessing_as_nothing() -> None:
    record = make_record_with(bbh=(0.315, 0.315), mmlu=(0.625, 0.25), drop=(0.9, None))
    # (0 + .375 / .75) / 2
    assert q.centred_score(record, ("world_bbh", "world_mmlu")) == pytest.approx(0.25)
    assert q.centred_score(record, ("world_bbh", "world_drop")) is None


def make_record_with(**tasks: tuple[float, float | None]) -> Record:
    evidence = make_evidence()
    assert evidence.evaluation is not None
    some = evidence.evaluation["tasks"]["world_bbh"]
    content = {
        f"world_{name}": {**some, "value": value, "chance": chance} for name, (value, chance) in tasks.items()
    }
    return assemble_record(replace(evidence, evaluation={**evidence.evaluation, "tasks": content}))

"""Statistics over seeds, against scipy, closed forms, a published table and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mhc_bench.evidence.statistics import (
    Spread,
    paired_difference,
    prediction_interval,
    spread,
    t_interval,
)

BASELINE = {0: 1.108, 1: 1.143, 2: 1.135}
HC = {0: 1.055, 1: 1.074, 2: 1.035}
MHC = {0: 1.098, 1: 1.125, 2: 1.076}


def test_the_spread_is_the_sample_mean_and_standard_deviation() -> None:
    found = spread({0: 1.0, 5: 2.0, 9: 4.0})
    assert found.n == 3
    assert found.mean == pytest.approx(7 / 3)
    assert found.sd == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))


def test_one_value_has_a_mean_and_no_spread() -> None:
    assert spread({3: 1.5}) == Spread(1, 1.5, None)
    assert spread({}) == Spread(0, None, None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        spread({0: 1.0, 1: value})


def test_the_paired_interval_is_that_of_scipys_paired_test() -> None:
    found = paired_difference(HC, BASELINE, higher_is_better=False)
    seeds = sorted(HC)
    oracle = stats.ttest_rel([HC[s] for s in seeds], [BASELINE[s] for s in seeds]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert found.unpaired == ()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_p_value_is_that_of_scipys_paired_test(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    ours, theirs = random.normal(1.1, 0.03, seeds), random.normal(1.2, 0.03, seeds)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)), higher_is_better=False)
    assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-9)
    assert paired_difference(BASELINE, BASELINE, higher_is_better=True).p == 1
    assert paired_difference({0: 1.0}, {0: 5.0}, higher_is_better=False).p is None


def test_two_pairs_give_the_interval_of_the_cauchy_distribution() -> None:
    # With one degree of freedom t is Cauchy: its 97.5 % point is tan(0.475 pi).
    found = paired_difference({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0}, higher_is_better=True)
    half = math.tan(0.475 * math.pi) * math.sqrt(2) / math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


@pytest.mark.parametrize(
    ("variant", "mean", "sd", "half", "verdict"),
    [(HC, -0.074, 0.024, 0.060, "better"), (MHC, -0.029, 0.026, 0.065, "not shown")],
)
def test_differences_worked_out_by_hand_come_out(
    variant: dict[int, float], mean: float, sd: float, half: float, verdict: str
) -> None:
    found = paired_difference(variant, BASELINE, higher_is_better=False)
    assert found.mean == pytest.approx(mean, abs=5e-4)
    assert found.sd == pytest.approx(sd, abs=6e-4)
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(half, abs=1.1e-3)
    assert found.verdict == verdict


def test_the_verdict_turns_with_the_better_direction() -> None:
    assert paired_difference(HC, BASELINE, higher_is_better=False).verdict == "better"
    assert paired_difference(HC, BASELINE, higher_is_better=True).verdict == "worse"
    assert paired_difference(BASELINE, HC, higher_is_better=False).verdict == "worse"


def test_pairing_removes_what_seeds_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 100, 5)
    base = dict(enumerate(shared))
    variant = {seed: value + 1 + 0.01 * seed for seed, value in base.items()}
    assert paired_difference(variant, base, higher_is_better=True).verdict == "better"


def test_one_pair_gives_a_difference_and_no_claim() -> None:
    found = paired_difference({0: 1.0}, {0: 5.0}, higher_is_better=False)
    assert (found.n, found.mean, found.low, found.high) == (1, -4.0, None, None)
    assert found.verdict == "one seed, no interval"


def test_seeds_without_a_partner_are_named_and_take_no_part() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 7: 99.0}, {0: 0.0, 1: 0.5, 4: -99.0}, higher_is_better=True)
    assert found.n == 2
    assert found.mean == pytest.approx(1.25)
    assert found.unpaired == (4, 7)


def test_no_common_seed_is_said() -> None:
    found = paired_difference({0: 1.0}, {1: 1.0}, higher_is_better=True)
    assert (found.n, found.mean, found.verdict, found.unpaired) == (0, None, "no pair", (0, 1))


def test_equal_differences_claim_no_certainty() -> None:
    # 0.3 - 0.2 and 1.3 - 1.2 differ in their last bits only: that is rounding, not a spread.
    found = paired_difference({0: 0.3, 1: 1.3}, {0: 0.2, 1: 1.2}, higher_is_better=True)
    assert (found.low, found.verdict) == (None, "no spread, no interval")
    assert found.p is None


@pytest.mark.parametrize("mean", [2.0, -2.0])
def test_only_a_spread_as_small_as_rounding_is_none(mean: float) -> None:
    assert t_interval(Spread(3, mean, 2.0e-12)) is None
    assert t_interval(Spread(3, mean, 2.1e-12)) is not None
    assert t_interval(Spread(3, 0.0, 1e-20)) is not None


def test_identical_runs_are_not_shown() -> None:
    found = paired_difference(BASELINE, BASELINE, higher_is_better=True)
    assert (found.mean, found.low, found.high, found.verdict) == (0.0, 0.0, 0.0, "not shown")


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_covers_the_truth_in_95_of_100_cases(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    trials, truth, covered, false_better = 4000, -0.03, 0, 0
    for _ in range(trials):
        shared = rng.normal(1.1, 0.02, seeds)
        base = dict(enumerate(shared))
        noise = rng.normal(0, 0.025, seeds)
        moved = {seed: base[seed] + truth + noise[seed] for seed in base}
        still = {seed: base[seed] + noise[seed] for seed in base}
        found = paired_difference(moved, base, higher_is_better=False)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
        false_better += paired_difference(still, base, higher_is_better=False).verdict == "better"
    assert 0.94 < covered / trials < 0.96
    assert 0.018 < false_better / trials < 0.033


def test_a_wider_level_gives_a_wider_interval() -> None:
    sample = Spread(4, 1.0, 0.5)
    narrow, wide = t_interval(sample, 0.8), t_interval(sample, 0.99)
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_more_run_lies_where_student_says() -> None:
    # by hand: sd 2, n = 4: 2 sqrt(1 + 1/4) times the 97.5 % point of t with 3 degrees of freedom
    found = prediction_interval(Spread(4, 10.0, 2.0))
    half = stats.t.ppf(0.975, 3) * math.sqrt(5)
    assert found == pytest.approx((10 - half, 10 + half))
    other = prediction_interval(Spread(4, 10.0, 2.0), level=0.5)
    assert other == pytest.approx((10 - stats.t.ppf(0.75, 3) * 5**0.5, 10 + stats.t.ppf(0.75, 3) * 5**0.5))
    assert prediction_interval(Spread(1, 10.0, None)) is None
    assert prediction_interval(Spread(3, 10.0, 0.0)) is None
    assert prediction_interval(Spread(0, None, None)) is None


def test_a_run_to_come_is_within_the_prediction_in_95_of_100_cases() -> None:
    random, inside = np.random.default_rng(3), 0
    for sample in random.normal(1.1, 0.03, (4000, 4)):
        low, high = prediction_interval(spread(dict(enumerate(sample[:3])))) or (0.0, 0.0)
        inside += low <= sample[3] <= high
    assert 0.94 < inside / 4000 < 0.96

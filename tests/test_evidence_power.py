"""Power, the interval of an sd and Holm's correction, against statsmodels, scipy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from mhc_bench.evidence.statistics import holm, paired_difference
from mhc_bench.evidence.statistics.power import (
    MOST_SEEDS,
    detectable_difference,
    detectable_effect,
    sd_interval,
    seeds_needed,
    shown_with,
)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 30])
def test_the_detectable_effect_is_that_of_statsmodels(n: int) -> None:
    # beyond two pairs the other tail has no weight
    expected = TTestPower().solve_power(nobs=n, alpha=0.025, power=0.8, alternative="larger")
    assert detectable_effect(n) == pytest.approx(expected, rel=1e-5)
    two_sided = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert detectable_effect(n) == pytest.approx(two_sided, rel=1e-5)


def test_a_difference_of_the_detectable_size_is_shown_four_times_in_five() -> None:
    random, n, trials = np.random.default_rng(5), 4, 4000
    sd = 0.02
    truth = detectable_effect(n) * sd
    found = random.normal(truth, sd, (trials, n))
    shown = [
        paired_difference(dict(enumerate(each)), dict.fromkeys(range(n), 0.0), higher_is_better=True).verdict
        for each in found
    ]
    assert shown.count("better") / trials == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.3, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8])
def test_the_seeds_needed_are_those_of_statsmodels(effect: float, alpha: float) -> None:
    exact = TTestPower().solve_power(effect_size=effect, alpha=alpha / 2, power=0.8, alternative="larger")
    assert seeds_needed(effect, alpha) == math.ceil(exact)


def test_the_seeds_needed_are_the_fewest_that_suffice() -> None:
    for effect in np.geomspace(0.1, 20, 25):
        needed = seeds_needed(float(effect))
        assert needed is not None
        assert shown_with(effect, needed) >= 0.8
        assert needed == 2 or shown_with(effect, needed - 1) < 0.8


def test_a_difference_needs_the_seeds_of_its_size_in_standard_deviations() -> None:
    # of 1 and 5: mean 3, sd 2 sqrt(2); the sign does not matter, the level does
    for sign in (1.0, -1.0):
        found = paired_difference({0: sign, 1: 5 * sign}, {0: 0.0, 1: 0.0}, higher_is_better=True)
        assert found.needed() == seeds_needed(3 / math.sqrt(8)) != seeds_needed(3 * math.sqrt(8))
        assert found.needed(0.05 / 8) == seeds_needed(3 / math.sqrt(8), 0.05 / 8) != found.needed()
    assert paired_difference({0: 1.0}, {0: 0.0}, higher_is_better=True).needed() is None
    assert paired_difference({0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.0}, higher_is_better=True).needed() is None
    assert paired_difference({}, {}, higher_is_better=True).needed() is None


def test_a_difference_tells_what_its_pairs_could_have_shown() -> None:
    found = paired_difference({0: 1.0, 1: 5.0}, {0: 0.0, 1: 0.0}, higher_is_better=True)
    assert found.detectable == detectable_difference(math.sqrt(8), 2)
    assert paired_difference({0: 1.0}, {0: 0.0}, higher_is_better=True).detectable is None


def test_no_number_of_seeds_is_given_for_next_to_nothing() -> None:
    assert seeds_needed(0.01) is None
    assert seeds_needed(0.09) is not None
    assert shown_with(0.01, MOST_SEEDS) < 0.8


def test_the_interval_of_an_sd_is_that_of_the_chi_square_distribution() -> None:
    low, high = sd_interval(2.0, 5)
    quantiles = stats.chi2.ppf([0.975, 0.025], 4)
    assert (low, high) == pytest.approx(tuple(np.sqrt(4 * 4.0 / quantiles)))


def test_the_interval_of_an_sd_holds_it_in_95_of_100_cases() -> None:
    sds = np.random.default_rng(1).normal(0, 0.3, (3000, 3)).std(axis=1, ddof=1)
    ends = [sd_interval(float(sd), 3) for sd in sds]
    assert np.mean([low <= 0.3 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.012)


def test_the_detectable_difference_scales_with_the_sd_and_so_do_its_ends() -> None:
    found = detectable_difference(0.5, 3)
    assert found is not None
    low, high = sd_interval(0.5, 3)
    assert found.value == pytest.approx(0.5 * 3.26404, rel=1e-5)
    assert (found.low / found.value, found.high / found.value) == pytest.approx((low / 0.5, high / 0.5))
    assert detectable_difference(0.5, 1) is None
    assert detectable_difference(0.5, 2) is not None


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_chance_to_show_a_difference_is_that_of_statsmodels(n: int) -> None:
    for effect in (0.5, 1.5):
        expected = TTestPower().power(effect, n, alpha=0.025, alternative="larger")
        assert shown_with(effect, n) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_holms_correction_is_that_of_statsmodels(size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(5):
        p = {str(name): float(value) for name, value in enumerate(random.beta(0.5, 2.0, size))}
        expected = multipletests(list(p.values()), method="holm")[1]
        assert [holm(p)[name] for name in p] == pytest.approx(list(expected))


def test_holms_correction_worked_by_hand() -> None:
    # ranks: .01 x 3, .02 x 2 = .04, .04 x 1 -> not below .04
    assert holm({"b": 0.04, "a": 0.01, "c": 0.02}) == pytest.approx({"a": 0.03, "c": 0.04, "b": 0.04})
    assert holm({"a": 0.9, "b": 0.8}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert holm({}) == {}

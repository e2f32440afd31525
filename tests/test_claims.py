"""The paper's claims: one rule, worked through by hand on records that confirm, contradict or cannot tell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from evidence_factory import SEEDS, make_evidence, make_record, suite_records

from mhc_bench.evidence import GAIN_BACKWARD, GAIN_FORWARD, Record, assemble_record
from mhc_bench.evidence.claims import Claim, Estimate, Finding, claims_table, judge
from mhc_bench.evidence.collate import Arm, collate
from mhc_bench.evidence.export import to_json
from mhc_bench.evidence.paper import CLAIMS, findings

KEYS = {claim.key for claim in CLAIMS}
CANNOT = "cannot tell at this scale"
BASE = (1.10, 1.20, 1.15)
BELOW = (1.00, 1.11, 1.04)  # differences -0.10, -0.09, -0.11
ABOVE = (1.20, 1.31, 1.24)
MIXED = (1.00, 1.31, 1.15)


def arm_of(losses: Mapping[str, Sequence[float]]) -> Arm:
    """A table of runs that end at these losses, by seed."""
    records = [
        make_record(variant, seed, loss=loss)
        for variant, each in losses.items()
        for seed, loss in enumerate(each)
    ]
    return collate(records).arms[0]


def found(arm: Arm, key: str) -> Finding:
    return next(one for one in findings(arm) if one.claim.key == key)


def edited(variant: str, seed: int, **changes: float) -> Record:
    """A run with other probes: `peak` for both gains, `norm` for the largest gradient norm."""
    evidence = make_evidence(variant, seed, loss=1.0 + seed)
    training = dict(evidence.training or {})
    if "peak" in changes:
        probe = {"final": 1.0, "max": changes["peak"], "min": 1.0}
        training["probes"] = {GAIN_FORWARD: probe, GAIN_BACKWARD: probe}
    if "norm" in changes:
        training["gradient_norm"] = {"mean": 0.5, "max": changes["norm"], "p99": 0.5}
    return assemble_record(replace(evidence, training=training))


@pytest.mark.parametrize(
    ("losses", "verdict"), [(BELOW, "confirmed"), (ABOVE, "contradicted"), (MIXED, CANNOT)]
)
def test_a_lower_loss_is_judged_by_its_paired_interval(losses: Sequence[float], verdict: str) -> None:
    one = found(arm_of({"baseline": BASE, "mhc": losses}), "loss/mhc")
    assert one.verdict == verdict


def test_the_number_and_its_interval_are_those_of_the_pairs() -> None:
    one = found(arm_of({"baseline": BASE, "mhc": BELOW}), "loss/mhc")
    assert one.estimate is not None and one.estimate.low is not None
    half = 4.302652730 * 0.01 / math.sqrt(3)  # t at 0.975 with 2 degrees of freedom; sd 0.01
    assert one.estimate.mean == pytest.approx(-0.10)
    assert one.estimate.low == pytest.approx(-0.10 - half)
    assert one.ours == f"-0.1000 ({-0.1 - half:+.4f}, {-0.1 + half:+.4f}) nats/token"


def test_mhc_against_hc_is_paired_with_hc_and_not_with_the_baseline() -> None:
    arm = arm_of({"baseline": BASE, "hc": ABOVE, "mhc": BASE})
    assert found(arm, "loss/mhc-hc").verdict == "confirmed"
    assert found(arm, "loss/mhc").verdict == CANNOT  # no difference at all


def test_one_seed_and_equal_differences_give_no_verdict() -> None:
    one = found(arm_of({"baseline": (1.2,), "mhc": (1.0,)}), "loss/mhc")
    assert (one.verdict, one.note) == (CANNOT, "one seed, no interval")
    same = found(arm_of({"baseline": (1.5, 2.5), "mhc": (1.25, 2.25)}), "loss/mhc")
    assert (same.verdict, same.note) == (CANNOT, "no interval")


def test_what_nobody_ran_is_not_measured_and_says_what_is_missing() -> None:
    one = found(arm_of({"baseline": BASE, "hc": BELOW}), "loss/mhc")
    assert (one.verdict, one.ours, one.estimate) == ("not measured", "no run of mhc", None)
    assert found(arm_of({"mhc": BASE}), "loss/mhc").ours == "no run of baseline"


def test_a_diverged_run_takes_the_verdict_and_not_the_row() -> None:
    records = [make_record("baseline", seed, loss=BASE[seed]) for seed in SEEDS]
    records += [make_record("mhc", seed, loss=BELOW[seed]) for seed in SEEDS[:2]]
    records.append(make_record("mhc", 2, diverged=70))
    one = found(collate(records).arms[0], "loss/mhc")
    assert (one.verdict, one.note) == (CANNOT, "mhc has no value in 1 of 3 runs")
    assert one.estimate is not None and one.estimate.n == 2


@pytest.mark.parametrize(
    ("res", "pre_post", "share", "without"),
    [
        # the full gain is -0.20: H_res alone gives most of it, and the rest without H_res little
        ((0.91, 0.93, 0.92), (1.07, 1.06, 1.08), "confirmed", "confirmed"),
        ((1.07, 1.06, 1.08), (0.91, 0.93, 0.92), "contradicted", "contradicted"),
        ((1.00, 0.99, 1.01), (1.01, 1.00, 0.99), CANNOT, CANNOT),
    ],
)
def test_the_ablation_compares_with_half_of_the_full_gain(
    res: Sequence[float], pre_post: Sequence[float], share: str, without: str
) -> None:
    base, full = (1.10, 1.10, 1.10), (0.90, 0.905, 0.895)
    arm = arm_of({"baseline": base, "hc-res": res, "hc-pre-post": pre_post, "hc-pre-post-res": full})
    assert found(arm, "ablation/share").verdict == share
    assert found(arm, "ablation/without-res").verdict == without
    assert found(arm, "ablation/full").verdict == "confirmed"


def gains(hc: Sequence[float], mhc: Sequence[float]) -> Arm:
    peaks = {"hc": hc, "mhc": mhc, "baseline": (1.0, 1.0, 1.0)}
    records = [
        edited(name, seed, peak=peak) for name, each in peaks.items() for seed, peak in enumerate(each)
    ]
    return collate(records).arms[0]


@pytest.mark.parametrize(
    ("hc", "mhc", "verdict"),
    [
        ((2000, 3000, 5000), (1.1, 1.2, 1.15), "confirmed"),
        ((1.1, 1.2, 1.15), (2000, 3000, 5000), "contradicted"),
        ((2, 50, 400), (1.2, 1.5, 30.0), CANNOT),
    ],
)
def test_gains_are_judged_on_a_logarithmic_scale(
    hc: Sequence[float], mhc: Sequence[float], verdict: str
) -> None:
    arm = gains(hc, mhc)
    assert {found(arm, key).verdict for key in ("gain/hc", "gain/mhc", "gain/hc-mhc")} == {verdict}


def test_a_gain_is_shown_as_its_geometric_mean() -> None:
    assert found(gains((10, 100, 1000), (1, 1, 1)), "gain/hc").ours.startswith("100 (")


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [((1.0, 1.1, 0.9), "confirmed"), ((9.0, 11.0, 10.0), "contradicted"), ((1.0, 2.0, 4.0), CANNOT)],
)
def test_a_gradient_norm_is_close_within_a_factor_of_two(norms: Sequence[float], verdict: str) -> None:
    records = [edited("mhc", seed, norm=norm) for seed, norm in enumerate(norms)]
    records += [edited("baseline", seed, norm=1.0) for seed in SEEDS]
    assert found(collate(records).arms[0], "gradient/mhc").verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "gpus", "verdict"),
    [(1.03, ["A GPU"], "confirmed"), (1.50, ["A GPU"], "contradicted"), (1.50, [], CANNOT)],
)
def test_overhead_is_judged_on_gpus_alone(ratio: float, gpus: list[str], verdict: str) -> None:
    evidence = make_evidence("mhc", 0)
    hardware = {**evidence.provenance["hardware"], "gpus": gpus}
    quantiles = {"p10": 0.0305, "p50": 0.031, "p90": 0.0315}
    time = {**(evidence.step_time or {}), "ratio_to_baseline": ratio, "quantiles": quantiles}
    mhc = replace(evidence, step_time=time, provenance={**evidence.provenance, "hardware": hardware})
    one = found(collate([make_record("baseline", 0), assemble_record(mhc)]).arms[0], "overhead/mhc")
    assert one.verdict == verdict
    assert one.estimate is not None
    assert one.estimate.low == pytest.approx(ratio * 0.0305 / 0.031 - 1)


def test_scores_get_no_verdict_below_five_seeds() -> None:
    one = found(collate(suite_records()).arms[0], "downstream/hc")
    assert (one.verdict, one.note) == (CANNOT, "fewer than 5 seeds")
    assert one.ours.startswith("+13.0 (")


def test_scores_are_judged_from_five_seeds_on() -> None:
    records = [make_record(name, seed, loss=1.0) for name in ("baseline", "hc") for seed in range(5)]
    assert found(collate(records).arms[0], "downstream/hc").verdict == "confirmed"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.9, "confirmed"),
        (1.1, 2.0, "contradicted"),
        (-2.0, -0.1, "contradicted"),
        (0.5, 1.5, CANNOT),
        (-1.0, 2.0, CANNOT),
        (0.0, 0.5, CANNOT),
    ],
)
def test_the_rule_is_inside_outside_or_neither(low: float, high: float, verdict: str) -> None:
    claim = Claim("k", "t", "p", "s", (), lambda arm: Estimate(0.0, low, high, 3), 0.0, 1.0, "r", str)
    assert judge(claim, arm_of({"baseline": BASE})).verdict == verdict


def test_every_claim_of_the_list_stands_in_the_table_whatever_was_run() -> None:
    table = claims_table(findings(arm_of({"baseline": BASE})))
    assert len(table.rows) == len(CLAIMS) == len(KEYS)
    assert {row[-1] for row in table.rows} == {"not measured"}


def test_the_data_have_the_claims_with_their_rules() -> None:
    content = json.loads(to_json(collate(suite_records())))["claims"]
    assert {one["claim"] for one in content} == KEYS
    assert all(one["rule"] and one["paper"] and one["source"] for one in content)

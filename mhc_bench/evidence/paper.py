"""The claims of the mHC paper (arXiv 2512.24880 v2) that records can speak to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.claims import Claim, Estimate, Finding, combined, judge, row_of
from mhc_bench.evidence.collate import BASELINE, Arm, row_values
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.tables import score_quantities
from mhc_bench.evidence.verdicts import FEWEST_SEEDS_FOR_TASKS

FULL = "hc-pre-post-res"
NATS = "nats/token"
HALF = 0.5
TENFOLD = 10.0
MHC_GAIN = 1.6
CLOSE = 2.0
OVERHEAD = 0.067
TABLE_4 = "Table 4, mean of its eight tasks"
"""By its printed values: baseline 53.1, HC 56.7, mHC 57.6."""
GRADIENT_NORM = next(one for one in q.STABILITY if one.key == "gradient_norm_max")


class Words(NamedTuple):
    """The first fields of a claim."""

    key: str
    text: str
    paper: str
    source: str


def findings(arm: Arm) -> list[Finding]:
    """What the runs of one protocol say of every claim."""
    return [judge(claim, arm) for claim in CLAIMS]


def _nats(value: float) -> str:
    return f"{value:+.4f}"


def _size(value: float) -> str:
    return f"{10**value:.4g}"


def _factor(value: float) -> str:
    return f"x {10**value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:+.1f}"


def _loss(words: Words, weights: Mapping[str, float], rule: str = "") -> Claim:
    """A claim that a sum of validation losses is below 0."""
    measure = partial(combined, weights=weights, quantity=q.VALIDATION_LOSS)
    said = rule or f"validation loss of {' minus '.join(weights)}, paired by seed, is below 0"
    variants = tuple(name for name in weights if name != BASELINE)
    return Claim(*words, variants, measure, -math.inf, 0.0, said, _nats, NATS)


def _logarithms(arm: Arm, weights: Mapping[str, float], quantity: Quantity) -> Estimate | None:
    logged = replace(quantity, key=f"log10 {quantity.key}", of=lambda run: _log10(quantity.of(run)))
    return combined(arm, weights, logged)


def _log10(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 else None


def _ratio(words: Words, pair: tuple[str, str], quantity: Quantity, within: float = math.inf) -> Claim:
    """A claim that one variant's number is the larger one, or that both are within a factor of each other."""
    above, below = pair
    measure = partial(_logarithms, weights={above: 1, below: -1}, quantity=quantity)
    low, high = (0.0, math.inf) if within == math.inf else (-math.log10(within), math.log10(within))
    region = "above 1" if within == math.inf else f"between 1/{within:g} and {within:g}"
    rule = f"{quantity.title.lower()}: the geometric mean over seeds of {above} / {below} is {region}"
    variants = tuple(name for name in pair if name != BASELINE)
    return Claim(*words, variants, measure, low, high, rule, _factor)


def _gain(words: Words, variant: str, low: float, high: float) -> Claim:
    measure = partial(_logarithms, weights={variant: 1}, quantity=q.GAIN_PEAK)
    region = f"above {low:g}" if high == math.inf else f"below {high:g}"
    rule = f"the geometric mean over seeds of {variant}'s peak composite gain is {region}"
    edges = [math.log10(edge) if edge else -math.inf for edge in (low, high)]
    return Claim(*words, (variant,), measure, edges[0], edges[1], rule, _size)


def _score(words: Words, pair: tuple[str, str]) -> Claim:
    variants = tuple(name for name in pair if name != BASELINE)
    measure = partial(_mean_score, weights={pair[0]: 1, pair[1]: -1})
    rule = (
        f"mean score over this table's tasks of {pair[0]} minus {pair[1]}, paired by seed, is above 0; no "
        f"verdict below {FEWEST_SEEDS_FOR_TASKS} seeds"
    )
    return Claim(*words, variants, measure, 0.0, math.inf, rule, _percent, "points")


def _mean_score(arm: Arm, weights: Mapping[str, float]) -> Estimate | None:
    mean = next((one for one in score_quantities(arm) if one.key == "score"), None)
    found = combined(arm, weights, mean) if mean else None
    if found and not found.doubt and found.n < FEWEST_SEEDS_FOR_TASKS:
        return replace(found, doubt=f"fewer than {FEWEST_SEEDS_FOR_TASKS} seeds")
    return found


def _overhead(arm: Arm) -> Estimate | None:
    """Extra step time of mHC: one measurement, with the 10th and 90th percentile of its steps."""
    seed, ratio = next(iter(row_values(row_of(arm, "mhc"), q.STEP_TIME_RATIO).items()), (None, None))
    if seed is None or ratio is None:
        return None
    run = row_of(arm, "mhc").runs[seed]
    assert run.cost.step_time is not None
    steps = run.cost.step_time.quantiles
    low, high = (ratio * each / steps.p50 - 1 for each in (steps.p10, steps.p90))
    doubt = "" if run.provenance.hardware.gpus else "timed on a CPU"
    return Estimate(ratio - 1, low, high, run.cost.step_time.n, "steps", doubt)


def _missing_row(words: Words, weights: Mapping[str, float]) -> Claim:
    """The share of the full gain that is there without H_res: below half where H_res carries most."""
    measure = partial(combined, weights=weights, quantity=q.VALIDATION_LOSS)
    rule = (
        f"(hc-pre-post - baseline) - {HALF:g} ({FULL} - baseline) of the validation loss, paired by seed, "
        "is above 0: less than half of the gain is there without H_res"
    )
    variants = tuple(name for name in weights if name != BASELINE)
    return Claim(*words, variants, measure, 0.0, math.inf, rule, _nats, NATS)


CLAIMS = (
    _loss(
        Words("loss/mhc", "mHC ends below the baseline in loss", "-0.021 (27B, training loss)", "Figure 5a"),
        {"mhc": 1, BASELINE: -1},
    ),
    _loss(
        Words("loss/hc", "HC ends below the baseline in loss", "-0.027 (scale not stated)", "Table 1"),
        {"hc": 1, BASELINE: -1},
    ),
    _loss(
        Words("loss/mhc-hc", "mHC ends below HC in loss", "lower; no number", "Figure 5a"),
        {"mhc": 1, "hc": -1},
    ),
    _loss(
        Words("ablation/res", "H_res alone lowers HC's loss", "-0.022", "Table 1"),
        {"hc-res": 1, BASELINE: -1},
    ),
    _loss(
        Words("ablation/pre-res", "H_res and H_pre lower HC's loss", "-0.025", "Table 1"),
        {"hc-pre-res": 1, BASELINE: -1},
    ),
    _loss(
        Words("ablation/full", "H_res, H_pre and H_post lower HC's loss", "-0.027", "Table 1"),
        {FULL: 1, BASELINE: -1},
    ),
    _loss(
        Words("ablation/share", "H_res alone carries most of HC's gain", "-0.022 of -0.027", "Table 1"),
        {"hc-res": 1, FULL: -HALF, BASELINE: HALF - 1},
        f"(hc-res - baseline) - {HALF:g} ({FULL} - baseline) of the validation loss, paired by seed, "
        "is below 0: more than half of the gain",
    ),
    _missing_row(
        Words(
            "ablation/without-res",
            "H_pre and H_post with H_res = I give less than half of HC's gain",
            "no such row",
            "Table 1 lacks it",
        ),
        {"hc-pre-post": 1, FULL: -HALF, BASELINE: HALF - 1},
    ),
    _loss(
        Words("ablation/mhc-identity", "mHC ends below mHC with H_res = I", "no such row", "not in v2"),
        {"mhc": 1, "mhc-identity": -1},
    ),
    _gain(
        Words("gain/hc", "HC's composite gain leaves 1 far behind", "about 3000 at its peak", "Figure 3b"),
        "hc",
        TENFOLD,
        math.inf,
    ),
    _gain(
        Words("gain/mhc", "mHC's composite gain stays near 1", "about 1.6 at its peak", "Figure 7b"),
        "mhc",
        0.0,
        MHC_GAIN,
    ),
    _ratio(
        Words("gain/hc-mhc", "HC's composite gain exceeds mHC's", "about 3000 against 1.6", "Figures 3b, 7b"),
        ("hc", "mhc"),
        q.GAIN_PEAK,
    ),
    _ratio(
        Words(
            "gradient/mhc",
            "mHC's gradient norm stays close to the baseline's",
            "in words; no number",
            "Figure 5b",
        ),
        ("mhc", BASELINE),
        GRADIENT_NORM,
        CLOSE,
    ),
    _ratio(
        Words(
            "gradient/hc-mhc", "HC's gradient norm peaks above mHC's", "in words; no number", "Figures 2b, 5b"
        ),
        ("hc", "mhc"),
        GRADIENT_NORM,
    ),
    Claim(
        *Words("overhead/mhc", "mHC costs little time at n = 4", "+6.7 % (fused, overlapped)", "Section 4.3"),
        ("mhc",),
        _overhead,
        -math.inf,
        OVERHEAD,
        "step time over the baseline's, minus 1, from the 10th to the 90th percentile of its steps, is below "
        "6.7 %; a CPU's times give no verdict",
        _percent,
        "%",
    ),
    _score(
        Words("downstream/hc", "HC scores above the baseline", "+3.6 points", TABLE_4),
        ("hc", BASELINE),
    ),
    _score(
        Words("downstream/mhc", "mHC scores above the baseline", "+4.5 points", TABLE_4),
        ("mhc", BASELINE),
    ),
    _score(Words("downstream/mhc-hc", "mHC scores above HC", "+0.9 points", TABLE_4), ("mhc", "hc")),
)

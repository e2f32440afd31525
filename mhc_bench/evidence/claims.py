"""What the mHC paper claims against what the records show: one rule for all claims.

A claim names a number that a table's runs give seed by seed, and the region in which it would have to lie. It
is *confirmed* where the number's 95 % interval lies inside the region, *contradicted* where the interval lies
wholly outside, and otherwise this cannot be told. The paper's size of an effect is printed and takes no part:
it belongs to models a thousand times larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mhc_bench.evidence.collate import BASELINE, Arm, Row, row_values
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.statistics import spread, t_interval
from mhc_bench.evidence.tables import Table
from mhc_bench.evidence.text import NO_VALUE

Verdict = Literal["confirmed", "contradicted", "cannot tell at this scale", "not measured"]
Values = Mapping[int, float]
"""By seed."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, in the claim's own unit."""

    mean: float
    low: float | None
    high: float | None
    n: int
    counted: str = ""
    """What n counts, where it is not seeds."""
    doubt: str = ""
    """Why no verdict follows, whatever the interval."""


@dataclass(frozen=True)
class Claim:
    """One claim of arXiv 2512.24880 v2."""

    key: str
    text: str
    paper: str
    """The paper's number, in words."""
    source: str
    """Table or figure of the paper."""
    variants: tuple[str, ...]
    """Whose runs it needs, beside the baseline's."""
    measure: Callable[[Arm], Estimate | None]
    low: float
    high: float
    """The region in which the number must lie."""
    rule: str
    """Number and region, in words."""
    show: Callable[[float], str]
    unit: str = ""


@dataclass(frozen=True)
class Finding:
    """What the runs of one table say of a claim."""

    claim: Claim
    arm: Arm
    estimate: Estimate | None
    verdict: Verdict
    note: str
    """Why there is no verdict; empty where there is one."""

    @property
    def ours(self) -> str:
        """The number with its interval, or why there is none."""
        found, show = self.estimate, self.claim.show
        if found is None:
            return self.note
        bounds = ""
        if found.low is not None and found.high is not None:
            bounds = f" ({show(found.low)}, {show(found.high)})"
        unit = f" {self.claim.unit}" if self.claim.unit else ""
        return f"{show(found.mean)}{bounds}{unit}{f'; {self.note}' if self.note else ''}"


def judge(claim: Claim, arm: Arm) -> Finding:
    """The verdict on one claim by the runs of one protocol."""
    present = {row.variant for row in arm.rows}
    if missing := [name for name in (BASELINE, *claim.variants) if name not in present]:
        return Finding(claim, arm, None, "not measured", f"no run of {', '.join(missing)}")
    found = claim.measure(arm)
    if found is None:
        return Finding(claim, arm, None, "not measured", "no run has the value")
    if found.doubt or found.low is None or found.high is None:
        note = found.doubt or ("one seed, no interval" if found.n == 1 else "no interval")
        return Finding(claim, arm, found, "cannot tell at this scale", note)
    return Finding(claim, arm, found, _verdict(claim, found.low, found.high), "")


def _verdict(claim: Claim, low: float, high: float) -> Verdict:
    if claim.low < low and high < claim.high:
        return "confirmed"
    if high < claim.low or low > claim.high:
        return "contradicted"
    return "cannot tell at this scale"


def over_seeds(values: Values, doubt: str = "") -> Estimate | None:
    """The mean of one number per seed, with its t interval."""
    sample = spread(values)
    if sample.mean is None:
        return None
    low, high = t_interval(sample) or (None, None)
    return Estimate(sample.mean, low, high, sample.n, doubt=doubt)


def row_of(arm: Arm, variant: str) -> Row:
    """A variant's runs.

    Raises:
        KeyError: the table has none.
    """
    found = next((row for row in arm.rows if row.variant == variant), None)
    if found is None:
        raise KeyError(variant)
    return found


def combined(arm: Arm, weights: Mapping[str, float], quantity: Quantity) -> Estimate | None:
    """Sum over variants of weight times value, seed by seed.

    A run without the value takes the verdict from the claim: a mean over survivors would flatter.
    """
    values = {variant: row_values(row_of(arm, variant), quantity) for variant in weights}
    seeds = set.intersection(*(set(each) for each in values.values()))
    sums = {
        seed: math.fsum(weight * values[variant][seed] for variant, weight in weights.items())
        for seed in sorted(seeds)
    }
    return over_seeds(sums, _lost(arm, values))


def _lost(arm: Arm, values: Mapping[str, Values]) -> str:
    said = []
    for name, each in values.items():
        runs = row_of(arm, name).runs
        if lost := len(runs) - len(each):
            said.append(f"{name} has no value in {lost} of {len(runs)} runs")
    return ", ".join(said)


def claims_table(findings: Sequence[Finding]) -> Table:
    """Claim, the paper's number, ours, verdict."""
    rows = [
        (
            one.claim.text,
            one.claim.paper,
            one.claim.source,
            one.ours,
            NO_VALUE if one.estimate is None else f"{one.estimate.n} {one.estimate.counted}".strip(),
            one.verdict,
        )
        for one in findings
    ]
    caption = (
        "Claims of arXiv 2512.24880 v2, mostly on a model of 27B parameters. Ours: mean over seeds with its "
        "95 % interval. Confirmed: the whole interval lies where the claim says. Contradicted: all of it "
        "lies elsewhere. The size of the paper's numbers takes no part: other models, other data."
    )
    columns = ("Claim", "Paper", "Source", "Ours", "n", "Verdict")
    return Table("The paper's claims", columns, tuple(rows), caption)


def as_data(finding: Finding) -> dict[str, Any]:
    """A finding as plain values: numbers unrounded, in the unit of the rule."""
    found = finding.estimate
    return {
        "arm": finding.arm.name,
        "protocol_id": finding.arm.protocol_id,
        "claim": finding.claim.key,
        "paper": finding.claim.paper,
        "source": finding.claim.source,
        "rule": finding.claim.rule,
        "mean": found.mean if found else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "n": found.n if found else 0,
        "verdict": finding.verdict,
        "note": finding.note,
    }

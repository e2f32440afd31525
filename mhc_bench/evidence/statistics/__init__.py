"""Statistics of paired runs: numbers in, numbers out. `docs/statistics.md` says what they mean."""

from __future__ import annotations

from mhc_bench.evidence.statistics.holm import holm
from mhc_bench.evidence.statistics.paired import (
    LEVEL,
    Difference,
    Spread,
    Verdict,
    paired_difference,
    prediction_interval,
    spread,
    t_interval,
)
from mhc_bench.evidence.statistics.power import ALPHA, POWER, Detectable

__all__ = [
    "ALPHA",
    "LEVEL",
    "POWER",
    "Detectable",
    "Difference",
    "Spread",
    "Verdict",
    "holm",
    "paired_difference",
    "prediction_interval",
    "spread",
    "t_interval",
]

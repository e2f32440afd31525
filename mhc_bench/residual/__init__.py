"""The subject under test: residual connections, one file per variant, behind one contract."""

from __future__ import annotations

from mhc_bench.residual.baseline import Baseline
from mhc_bench.residual.contract import Carry, Maps, ResidualConnection
from mhc_bench.residual.hc import HyperConnection
from mhc_bench.residual.mhc import ManifoldHyperConnection
from mhc_bench.residual.registry import build, register_variant, resolve, variant_names, variant_options

__all__ = [
    "Baseline",
    "Carry",
    "HyperConnection",
    "ManifoldHyperConnection",
    "Maps",
    "ResidualConnection",
    "build",
    "register_variant",
    "resolve",
    "variant_names",
    "variant_options",
]

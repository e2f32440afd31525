"""The subject under test: residual connections, one file per variant, behind one contract."""

from __future__ import annotations

import importlib
import pkgutil

from mhc_bench.residual.attnres import AttentionResidual
from mhc_bench.residual.baseline import Baseline
from mhc_bench.residual.cheap_skip import CheapSkip
from mhc_bench.residual.contract import Carry, Maps, ResidualConnection, Start
from mhc_bench.residual.ddl import DeepDelta
from mhc_bench.residual.denseformer import DenseFormer
from mhc_bench.residual.frac import FracConnection
from mhc_bench.residual.hc import HyperConnection
from mhc_bench.residual.hc_components import ComponentHyperConnection
from mhc_bench.residual.laurel import LearnedAugmentedResidual
from mhc_bench.residual.mhc import ManifoldHyperConnection
from mhc_bench.residual.mhc_identity import IdentityHyperConnection
from mhc_bench.residual.mhc_orthogonal import OrthogonalHyperConnection
from mhc_bench.residual.mhc_spectral import SpectralHyperConnection
from mhc_bench.residual.mhc_unconstrained import UnconstrainedHyperConnection
from mhc_bench.residual.permutations import KroneckerHyperConnection, LiteHyperConnection
from mhc_bench.residual.registry import build, register_variant, resolve, variant_names, variant_options
from mhc_bench.residual.static import StaticHyperConnection, StaticManifoldHyperConnection

__all__ = [
    "AttentionResidual",
    "Baseline",
    "Carry",
    "CheapSkip",
    "ComponentHyperConnection",
    "DeepDelta",
    "DenseFormer",
    "FracConnection",
    "HyperConnection",
    "IdentityHyperConnection",
    "KroneckerHyperConnection",
    "LearnedAugmentedResidual",
    "LiteHyperConnection",
    "ManifoldHyperConnection",
    "Maps",
    "OrthogonalHyperConnection",
    "ResidualConnection",
    "SpectralHyperConnection",
    "Start",
    "StaticHyperConnection",
    "StaticManifoldHyperConnection",
    "UnconstrainedHyperConnection",
    "build",
    "register_variant",
    "resolve",
    "variant_names",
    "variant_options",
]

for _module in pkgutil.iter_modules(__path__):  # so that a new variant's file is enough
    importlib.import_module(f"{__name__}.{_module.name}")

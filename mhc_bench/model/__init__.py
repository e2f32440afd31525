"""Models: a stock decoder of transformers, grafted with a residual connection, filled, counted and saved."""

from __future__ import annotations

from mhc_bench.model.backbone import build_backbone
from mhc_bench.model.counting import FLOPS_RULE, count_parameters, flops_per_token
from mhc_bench.model.digests import shared_weight_digest, weight_digest
from mhc_bench.model.families import decoder_layers, supported_families
from mhc_bench.model.graft import graft
from mhc_bench.model.grouping import parameter_groups
from mhc_bench.model.initialisation import materialise, perturb
from mhc_bench.model.layers import residual_connections
from mhc_bench.model.operating import Choice, Workload, chosen, cpp_compiler, use_operations
from mhc_bench.model.routing import routers
from mhc_bench.model.saving import load_model, load_run, save_model

__all__ = [
    "FLOPS_RULE",
    "Choice",
    "Workload",
    "build_backbone",
    "chosen",
    "count_parameters",
    "cpp_compiler",
    "decoder_layers",
    "flops_per_token",
    "graft",
    "load_model",
    "load_run",
    "materialise",
    "parameter_groups",
    "perturb",
    "residual_connections",
    "routers",
    "save_model",
    "shared_weight_digest",
    "supported_families",
    "use_operations",
    "weight_digest",
]

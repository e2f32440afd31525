"""How decoder layers are run: what they compute again in the backward pass, and whether they are compiled."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from mhc_bench.config.schema import HardwareConfig
from mhc_bench.model import decoder_layers, residual_connections, use_operations
from mhc_bench.model.recompute import best_block, recompute_blocks, recompute_layers

COMPILED_FORMS = 64
"""Forms of one layer's code that may be compiled: first, inner and last layer, dense and routed, training and
validation. torch's own limit of 8 would silently leave the rest of the layers eager."""


def prepare_layers(model: PreTrainedModel, hardware: HardwareConfig) -> None:
    """Apply recomputation and compilation to a grafted model that is not sharded yet, in place."""
    use_operations(model, hardware.operations)
    if hardware.recompute == "layer":
        recompute_layers(model)
    elif hardware.recompute == "block":
        recompute_blocks(model, hardware.recompute_sublayers or default_block(model))
    if hardware.compile:
        allow_recompiles()
        for _, layer in decoder_layers(model):
            layer.compile()


def allow_recompiles() -> None:
    """Let code be compiled anew for up to `COMPILED_FORMS` forms of what it is given."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_FORMS)


def default_block(model: PreTrainedModel) -> float:
    """The paper's L_r for the model's streams and depth; one stream where a variant has no `streams`."""
    connections = list(residual_connections(model).values())
    return best_block(getattr(connections[0], "streams", 1), len(connections))

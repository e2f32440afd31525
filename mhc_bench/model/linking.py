"""Which decoder layers hand the next one more than a stream: see `mhc_bench.model.layers.Handed`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mhc_bench.residual import ResidualConnection


def link(decoder: Any, _: object = None) -> None:
    """Tell each layer with whose read its last write is one: the next layer's, where they fuse.

    Before every forward pass of the decoder: its layers may have been moved, replaced or taken out since.
    """
    layers = list(decoder.layers)
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        following = () if after is None or not are_joined(layer, after) else (after.attention_residual,)
        if layer.following != following:
            layer.following = following


def are_joined(layer: Any, after: Any) -> bool:
    """Whether a write of `layer` and a read of the next one can be one operation, where `layer` is run."""
    reader = after.attention_residual
    same_device = _device(layer) == _device(after)
    return bool(layer.mlp_residual.fuses_with(reader) and same_device and _is_at_hand(reader))


def _device(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _is_at_hand(connection: ResidualConnection) -> bool:
    """Whether its parameters can be used outside its layer: FSDP2 must gather them as a unit of their own."""
    own_unit = isinstance(connection, FSDPModule)
    return own_unit or not any(isinstance(each, DTensor) for each in connection.parameters())

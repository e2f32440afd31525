"""Digests of weights: proof that two runs started, or ended, with the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mhc_bench.model.layers import RESIDUAL_NAMES


def shared_weight_digest(model: nn.Module) -> str:
    """SHA-256 (hex) of all but the residual connections, which variants share. Collective when sharded."""
    return digest((name, each) for name, each in persistent_tensors(model) if not is_residual(name))


def weight_digest(model: nn.Module) -> str:
    """SHA-256 (hex) of all parameters and persistent buffers. Collective when sharded."""
    return digest(persistent_tensors(model))


def is_residual(name: str) -> bool:
    """Whether a qualified parameter name belongs to a residual connection."""
    return any(part in RESIDUAL_NAMES for part in name.split("."))


def persistent_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters (shared ones once) and persistent buffers with their names, by name."""
    saved = model.state_dict(keep_vars=True)
    buffers = [(name, each) for name, each in model.named_buffers() if name in saved]
    return sorted([*model.named_parameters(), *buffers], key=lambda pair: pair[0])


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """The full tensor on the CPU; collective when sharded."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


@torch.no_grad()
def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over name, dtype, shape and bytes of each tensor, whole one by one, in the given order."""
    running = hashlib.sha256()
    for name, tensor in tensors:
        full = whole(tensor)
        running.update(f"{name} {full.dtype} {tuple(full.shape)}\n".encode())
        running.update(full.reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()

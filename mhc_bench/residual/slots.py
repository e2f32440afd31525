"""Streams that hold several hidden states, [..., s, C]: putting one in, taking one or their sum out.

Results are tensors of their own: FSDP2 warns of modules that return views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.ops.precision import shaped, widened, without_autocast


def first_slot(hidden: Tensor) -> Tensor:
    """[..., C] to [..., 1, C]."""
    return shaped(hidden, *hidden.shape[:-1], 1, hidden.shape[-1])


def unchanged(hidden: Tensor) -> Tensor:
    """`hidden` itself. FSDP2's hooks around a method make its arguments views."""
    return shaped(hidden, *hidden.shape)


def copies(hidden: Tensor, number: int) -> Tensor:
    """[..., C] to [..., s, C], the same in every slot."""
    wide = hidden.unsqueeze(-2).expand(*hidden.shape[:-1], number, hidden.shape[-1])
    return wide.clone(memory_format=torch.contiguous_format)


def slot(stream: Tensor, place: int) -> Tensor:
    """State number `place`, [..., C]."""
    return stream.select(-2, place).clone()


def weighted_sum(stream: Tensor, weights: Tensor) -> Tensor:
    """[..., s, C] and [..., s] or [s] to [..., C] in the dtype of the stream, computed in fp32 at least."""
    with without_autocast(stream):
        return (weights.unsqueeze(-1) * widened(stream)).sum(-2).to(stream.dtype)

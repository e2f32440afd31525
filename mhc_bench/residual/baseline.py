"""The plain residual connection: the arm that every other one is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.residual.contract import Carry, Maps, ResidualConnection, Start
from mhc_bench.residual.registry import register_variant


@register_variant("baseline")
class Baseline(ResidualConnection):
    """x + F(x): the stream is the hidden state itself, [B, T, C], and there is nothing to learn."""

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)

    def expand(self, hidden: Tensor) -> Tensor:
        return hidden

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return stream, ()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return stream + update

    def collapse(self, stream: Tensor) -> Tensor:
        return stream

    def start(self) -> Start:
        return Start("exact")

    def maps(self, stream: Tensor) -> Maps:
        """One stream that is read, written and kept with weight one, so every gain is exactly 1."""
        dtype = torch.promote_types(stream.dtype, torch.float32)
        one = torch.ones((*stream.shape[:-1], 1), dtype=dtype, device=stream.device)
        return Maps(one, one, one.unsqueeze(-1))

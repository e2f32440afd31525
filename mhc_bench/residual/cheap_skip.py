"""A control: one earlier state, kept and added back once. What cannot beat this is not worth its price."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops.precision import widened
from mhc_bench.residual.contract import Carry, ResidualConnection, Start
from mhc_bench.residual.options import within
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.slots import first_slot, slot


@register_variant("cheap-skip")
class CheapSkip(ResidualConnection):
    """The plain residual, and once x' = x + F(x) + w x_s: the state that sublayer s read comes back.

    One scalar in the whole model, no work elsewhere, and one more activation kept between sublayers s and t:
    the stream is [B, T, 2, C] there and [B, T, 1, C] everywhere else. No paper has it; it is a control for
    variants that pay more for access to earlier activations.

    Chosen here: from a quarter of the depth to three quarters of it, and w starts at 0, so that the start is
    exactly the plain residual and w can go either way.

    Args:
        source: s over the depth.
        target: t over the depth, after the source.
    """

    def __init__(
        self, *, width: int, depth: int, index: int, source: float = 0.25, target: float = 0.75
    ) -> None:
        super().__init__(width=width, depth=depth, index=index)
        if not 0 <= source < target:
            raise UsageError(f"source {source:g}, target {target:g}: expected 0 <= source < target <= 1")
        first = int(source * depth)
        last = min(int(within("target", target, 0.0, 1.0) * depth), depth - 1)
        self.keeps = index == first < last
        self.adds = index == last > first
        if self.adds:
            self.weight = empty(1)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return first_slot(hidden)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return slot(stream, 0), ()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        state = stream[..., :1, :] + update.unsqueeze(-2).to(stream.dtype)
        if self.adds:
            back = self.weight * widened(stream[..., 1:, :])
            return (widened(state) + back).to(stream.dtype)
        return torch.cat([state, stream if self.keeps else stream[..., 1:, :]], dim=-2)

    def collapse(self, stream: Tensor) -> Tensor:
        return slot(stream, 0)

    def start(self) -> Start:
        return Start("exact")

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        if name == "weight" and self.adds:
            return torch.zeros(1, device="cpu")
        return super().initial_value(name, generator)

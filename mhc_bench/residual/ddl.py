"""Deep Delta Learning: each sublayer erases along its own output's direction and writes there anew."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.ops.precision import widened, without_autocast
from mhc_bench.residual.contract import Carry, ResidualConnection
from mhc_bench.residual.options import number_of, within
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.slots import copies, weighted_sum

_STD = 0.5
"""Standard deviation of the projections times sqrt(C), the rule of the authors' code for matrices."""


class DeltaMaps(NamedTuple):
    """The carry."""

    beta: Tensor
    """[B, T, 1]."""
    value: Tensor
    """[B, T, d_v]."""


@register_variant("ddl")
class DeepDelta(ResidualConnection):
    """Deep Delta Learning, arXiv 2601.00417: X' = X + beta k (v^T - k^T X), X in R^{C x d_v}.

    k = F / ||F|| is the sublayer's output; beta = 2 sigmoid(w_beta . norm(h) + b_beta) in (0, 2): 0 keeps,
    1 replaces what X holds along k, 2 reflects; v = value_scale sigmoid(W_v h + b_v); and h = X read, with
    read [d_v] starting at 1/d_v, is what the sublayer gets. X starts as d_v copies of the embedding. The
    stream is [B, T, d_v, C]. (d_v + 1)(C + 1) + d_v parameters per sublayer and d_v more at the end; the
    projections decay. The size of F is lost: only its direction counts, so this starts as no plain residual.

    Form and start (beta 1, v about value_scale / 2, projections normal with std 0.5 / sqrt(C)) are those of
    the authors' code; the paper itself was not read. Left out: the code's causal convolution over time ahead
    of read, because a connection sees one token at a time when text is generated with a KV cache. Chosen
    here: the norm of h is an RMS norm without a gain, and d_v = 1 has the same v as d_v > 1 (the code has
    the constant 2).

    Args:
        value_channels: d_v.
        value_scale: the largest v.
        epsilon: of the RMS norm; its square root times sqrt(C) is the smallest ||F|| that is divided by.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        value_channels: int = 4,
        value_scale: float = 4.0,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.value_channels = number_of("value_channels", value_channels)
        self.value_scale = within("value_scale", value_scale, 0.0, 100.0)
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)
        self.weight_beta, self.bias_beta = empty(1, width), empty(1)
        self.weight_value, self.bias_value = empty(value_channels, width), empty(value_channels)
        self.read_weight = empty(value_channels)
        if index == depth - 1:
            self.final_read_weight = empty(value_channels)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return copies(hidden, self.value_channels)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        with without_autocast(stream):
            hidden = weighted_sum(widened(stream), self.read_weight)
            context = reference.rms_normalised(hidden, self.epsilon)
            beta = 2 * torch.sigmoid(context @ self.weight_beta.T + self.bias_beta)
            value = self.value_scale * torch.sigmoid(hidden @ self.weight_value.T + self.bias_value)
            return hidden.to(stream.dtype), DeltaMaps(beta, value)

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        beta, value = carry
        with without_autocast(stream):
            state, output = widened(stream), widened(update)
            direction = reference.rms_normalised(output, self.epsilon).unsqueeze(-2) / math.sqrt(self.width)
            held = (state * direction).sum(-1)
            change = (beta * (value - held)).unsqueeze(-1) * direction
            written: Tensor = (state + change).to(stream.dtype)
            return written

    def collapse(self, stream: Tensor) -> Tensor:
        weight = self.final_read_weight if self.index == self.depth - 1 else self.read_weight
        return weighted_sum(stream, weight)

    def decayed_parameters(self) -> frozenset[str]:
        return frozenset({"weight_beta", "weight_value"})

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        channels = self.value_channels
        match name:
            case "weight_beta" | "weight_value":
                rows = 1 if name == "weight_beta" else channels
                normal = torch.randn(rows, self.width, generator=generator, device="cpu")
                return normal * (_STD / math.sqrt(self.width))
            case "bias_beta":
                return torch.zeros(1, device="cpu")
            case "bias_value":
                return torch.zeros(channels, device="cpu")
            case "read_weight" | "final_read_weight":
                return torch.full((channels,), 1 / channels, device="cpu")
        return super().initial_value(name, generator)

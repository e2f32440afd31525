"""Hyper-Connections: n streams, read, mixed and written by maps that a token's own streams move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from mhc_bench.errors import choose
from mhc_bench.ops import reference
from mhc_bench.ops.types import Coefficients, ComputedCoefficients, HcCoefficients
from mhc_bench.residual.contract import Start
from mhc_bench.residual.options import within
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.widened import WidenedConnection

Activation = Literal["tanh", "identity"]


@register_variant("hc")
class HyperConnection(WidenedConnection):
    """Dynamic Hyper-Connections with tanh, arXiv 2409.19606 (restated as Eq. 5 of 2512.24880).

    With x~ the RMS-normalised streams, each over its own C entries: H_pre = s tanh(x~ w_pre) + static_pre,
    H_post = s' tanh(x~ w_post) + static_post, H_res = s tanh(x~ w_res)^T + static_res. The weights absorb
    the norm's gain. In the paper's own letters A_m is H_pre, B is H_post, and A_r is H_res transposed.

    At the start the dynamic weights are 0 and the static maps are the plain residual: H_pre reads stream
    k mod n alone, H_post is 1 and H_res the identity. The streams are copies until the first optimizer step;
    they part then, since different sublayers read different ones. Nothing bounds the maps, so their product
    over depth can grow.

    Args:
        streams: n.
        scale: start value of s and s'; as in the paper H_pre and H_res share one.
        epsilon: of the RMS norm.
        activation: of the dynamic parts: `tanh` as in the paper, or `identity`, its ablation: then nothing
            bounds how far a token moves the maps. Computed by composition, slower than the fused operations.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        scale: float = 0.01,
        epsilon: float = 1e-6,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__(width=width, depth=depth, index=index, streams=streams)
        self.activation = choose("activation", activation, ("tanh", "identity"))
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)
        self.initial_scale = within("scale", scale, 0.0, 10.0)
        n = self.streams
        self.weight = nn.Parameter(torch.empty(2 + n, width, dtype=torch.float32))
        self.static_pre = nn.Parameter(torch.empty(n, dtype=torch.float32))
        self.static_post = nn.Parameter(torch.empty(n, dtype=torch.float32))
        self.static_res = nn.Parameter(torch.empty(n, n, dtype=torch.float32))
        self.scale_mix = nn.Parameter(torch.empty(1, dtype=torch.float32))
        self.scale_write = nn.Parameter(torch.empty(1, dtype=torch.float32))
        self.reset_parameters()

    def coefficients(self) -> Coefficients:
        static = self.static_pre, self.static_post, self.static_res
        own = HcCoefficients(self.weight, static, (self.scale_mix, self.scale_write), self.epsilon)
        if self.activation == "tanh":
            return own
        return ComputedCoefficients(lambda stream: reference.hc_maps(stream, *own, activation=lambda x: x))

    def decayed_parameters(self) -> frozenset[str]:
        """The dynamic weights, as in the paper."""
        return frozenset({"weight"})

    def gate_parameters(self) -> frozenset[str]:
        return frozenset({"scale_mix", "scale_write"})

    def vectors_per_token(self) -> Mapping[str, int]:
        """The dynamic weights meet each stream."""
        return {"weight": self.streams, "static_res": 0}

    def start(self) -> Start:
        """Copies that are summed: the final norm hides the factor n but for its epsilon."""
        return Start("approximate", 2e-5)

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        n = self.streams
        match name:
            case "weight":
                return torch.zeros(2 + n, self.width, device="cpu")
            case "static_pre" | "static_post" | "static_res":
                return plain_map(name.removeprefix("static_"), n, self.index)
            case "scale_mix" | "scale_write":
                return torch.full((1,), self.initial_scale, device="cpu")
        return super().initial_value(name, generator)


def plain_map(which: str, n: int, index: int) -> Tensor:
    """HC's static start in sublayer `index`: pre reads stream k mod n, post is 1, res the identity."""
    identity = torch.eye(n, device="cpu")
    match which:
        case "pre":
            return identity[index % n]
        case "post":
            return torch.ones(n, device="cpu")
    return identity

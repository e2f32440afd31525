"""Frac-Connections: the hidden state is split into fractions instead of being copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops.precision import shaped, widened, without_autocast
from mhc_bench.residual.contract import Carry, ResidualConnection, Start
from mhc_bench.residual.options import number_of, within
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.slots import unchanged


class FractionMaps(NamedTuple):
    """The carry."""

    post: Tensor
    """[B, T, m]: B."""
    res: Tensor
    """[B, T, m, m] as [out, in]: A transposed."""


@register_variant("frac")
class FracConnection(ResidualConnection):
    """Dynamic Frac-Connections, arXiv 2503.14125: H' = B^T F(Y^T H) + A^T H, H in R^{m x C/m}.

    H is the hidden state cut into m fractions, so the stream stays [B, T, C]. F sees the fractions of Y^T H
    joined to width C, and B weighs each fraction of what it puts out. With H~ the fractions after a LayerNorm
    over their own C/m entries: Y = s tanh(H~ W_Y) + Y_0, A = s tanh(H~ W_A) + A_0 and
    B = s' tanh(H~ W_B)^T + B_0.
    As in the paper W starts at 0, s and s' at 0.01, Y_0 and A_0 as the identity and B_0 at 1: exactly the
    plain residual. (2m + 1)(C/m + m) + 2 parameters per sublayer; W decays, the rest does not.

    Chosen here, as in `hc`: Y and A share s; the norm's gain is absorbed in W, and it has no bias.

    Args:
        fractions: m, a divisor of the width.
        scale: start value of s and s'.
        epsilon: of the LayerNorm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        fractions: int = 4,
        scale: float = 0.01,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.fractions = m = number_of("fractions", fractions)
        if width % m:
            raise UsageError(f"fractions {m}: expected a divisor of the width {width}")
        self.initial_scale = within("scale", scale, 0.0, 10.0)
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)
        self.weight = empty(2 * m + 1, width // m)
        self.static_read, self.static_post, self.static_res = empty(m, m), empty(m), empty(m, m)
        self.scale_mix, self.scale_write = empty(1), empty(1)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return unchanged(hidden)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        m = self.fractions
        with without_autocast(stream):
            parts = self._parts(stream)
            normal = F.layer_norm(parts, (self.width // m,), eps=self.epsilon)
            dynamic = torch.tanh(normal @ self.weight.T)  # [..., m, 2m + 1], one row per fraction
            # transposed to [out, in]: entry (out, in) depends on fraction `in`
            mix = self.scale_mix * dynamic.mT
            read, res = mix[..., :m, :] + self.static_read, mix[..., m : 2 * m, :] + self.static_res
            post = self.scale_write * dynamic[..., -1] + self.static_post
            hidden = shaped((read @ parts).to(stream.dtype), *stream.shape)
        return hidden, FractionMaps(post, res)

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        post, res = carry
        with without_autocast(stream):
            written = res @ self._parts(stream) + post.unsqueeze(-1) * self._parts(update)
            return shaped(written.to(stream.dtype), *stream.shape)

    def collapse(self, stream: Tensor) -> Tensor:
        return unchanged(stream)

    def decayed_parameters(self) -> frozenset[str]:
        """The dynamic weights."""
        return frozenset({"weight"})

    def gate_parameters(self) -> frozenset[str]:
        return frozenset({"scale_mix", "scale_write"})

    def vectors_per_token(self) -> Mapping[str, int]:
        """The dynamic weights meet each fraction."""
        return {"weight": self.fractions, "static_read": 0, "static_res": 0}

    def start(self) -> Start:
        return Start("exact")

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        m = self.fractions
        match name:
            case "weight":
                return torch.zeros(2 * m + 1, self.width // m, device="cpu")
            case "static_read" | "static_res":
                return torch.eye(m, device="cpu")
            case "static_post":
                return torch.ones(m, device="cpu")
            case "scale_mix" | "scale_write":
                return torch.full((1,), self.initial_scale, device="cpu")
        return super().initial_value(name, generator)

    def _parts(self, hidden: Tensor) -> Tensor:
        """[..., C] to [..., m, C/m], in fp32 at least."""
        return widened(hidden).reshape(*hidden.shape[:-1], self.fractions, -1)

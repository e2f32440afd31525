"""Parts of Hyper-Connections alone: the component ablation of the mHC paper, with the row that it lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mhc_bench.errors import choose
from mhc_bench.ops.types import HcCoefficients
from mhc_bench.residual.hc import plain_map
from mhc_bench.residual.options import within
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.widened import WidenedConnection

Components = Literal["res", "pre", "post", "pre+res", "post+res", "pre+post", "pre+post+res"]
_CHOICES = ("res", "pre", "post", "pre+res", "post+res", "pre+post", "pre+post+res")


@register_variant("hc-components")
class ComponentHyperConnection(WidenedConnection):
    """Dynamic HC with some of its maps fixed: Table 1 of arXiv 2512.24880, and pre + post without res.

    A learned map is that of `hc`: scale tanh(x~ w) + static. A fixed one is the table's constant:
    H_pre = 1/n, H_post = 1, H_res = I. The table has res, pre+res and all three; its missing row is pre+post.
    It names neither the start nor the model.

    Chosen here: the dynamic weights start normal with variance 1/C, and not at 0 as in HC. With H_pre fixed
    at 1/n all streams are read alike, so from 0 they would get equal gradients and stay copies for ever.
    Learned static maps start as HC's. Compare these rows with each other (pre+post+res is the full one),
    not with `hc`.

    Args:
        streams: n.
        components: the learned maps, joined by +.
        scale: start value of the factors of the dynamic parts; pre and res share one.
        epsilon: of the RMS norm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        components: Components = "pre+post",
        scale: float = 0.01,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index, streams=streams)
        self.learned = choose("components", components, _CHOICES).split("+")
        self.initial_scale = within("scale", scale, 0.0, 10.0)
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)
        for which in self.learned:
            shape = plain_map(which, self.streams, index).shape
            self.register_parameter(f"weight_{which}", empty(_rows(which, self.streams), width))
            self.register_parameter(f"static_{which}", empty(*shape))
        for name in sorted(self.gate_parameters()):
            self.register_parameter(name, empty(1))
        self.reset_parameters()

    def coefficients(self) -> HcCoefficients:
        like: Tensor = getattr(self, f"static_{self.learned[0]}")
        weights = [self._own("weight", which, like) for which in ("pre", "post", "res")]
        pre, post, res = (self._own("static", which, like) for which in ("pre", "post", "res"))
        one = like.new_ones(1)  # the scale of a part that is 0
        scale = getattr(self, "scale_mix", one), getattr(self, "scale_write", one)
        return HcCoefficients(torch.cat(weights), (pre, post, res), scale, self.epsilon)

    def _own(self, kind: str, which: str, like: Tensor) -> Tensor:
        """A learned weight or static map; of a fixed map 0 and the constant."""
        n = self.streams
        if which in self.learned:
            tensor: Tensor = getattr(self, f"{kind}_{which}")
            return tensor
        if kind == "weight":
            return like.new_zeros(_rows(which, n), self.width)
        if which == "res":
            return torch.eye(n, dtype=like.dtype, device=like.device)
        return like.new_full((n,), 1 / n if which == "pre" else 1.0)

    def decayed_parameters(self) -> frozenset[str]:
        """The dynamic weights, as in HC."""
        return frozenset(f"weight_{which}" for which in self.learned)

    def gate_parameters(self) -> frozenset[str]:
        mix = {"scale_mix"} if {"pre", "res"} & set(self.learned) else set()
        return frozenset(mix | ({"scale_write"} if "post" in self.learned else set()))

    def vectors_per_token(self) -> Mapping[str, int]:
        """As in HC."""
        static = {"static_res": 0} if "res" in self.learned else {}
        return static | dict.fromkeys(self.decayed_parameters(), self.streams)

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        kind, _, which = name.partition("_")
        if name in self.gate_parameters():
            return torch.full((1,), self.initial_scale, device="cpu")
        if which in self.learned and kind == "static":
            return plain_map(which, self.streams, self.index)
        if which in self.learned and kind == "weight":
            normal = torch.randn(_rows(which, self.streams), self.width, generator=generator, device="cpu")
            return normal / math.sqrt(self.width)
        return super().initial_value(name, generator)


def _rows(which: str, n: int) -> int:
    """Rows of a map's dynamic weight: one, or for res one for each stream that is written."""
    return n if which == "res" else 1

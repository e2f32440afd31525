"""HC and mHC with maps that are parameters alone: the same for every token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mhc_bench.limits import MOST_ITERATIONS
from mhc_bench.ops import reference
from mhc_bench.ops.types import Coefficients, StaticCoefficients
from mhc_bench.residual.contract import Start
from mhc_bench.residual.hc import plain_map
from mhc_bench.residual.options import from_one_to, within
from mhc_bench.residual.projected import balanced_writes, empty, near_identity, one_against_others
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.widened import WidenedConnection


@register_variant("hc-static")
class StaticHyperConnection(WidenedConnection):
    """Static Hyper-Connections (SHC), arXiv 2409.19606: H_pre, H_post and H_res are free parameters.

    In the paper's letters A_m is H_pre, B is H_post and A_r is H_res transposed; n (n + 2) parameters per
    sublayer, none of which decays. The start is the paper's (Eq. 14), as in `hc`: H_pre reads stream k mod n
    alone, H_post is 1, H_res the identity.

    Args:
        streams: n.
    """

    def __init__(self, *, width: int, depth: int, index: int, streams: int = 4) -> None:
        super().__init__(width=width, depth=depth, index=index, streams=streams)
        n = self.streams
        self.static_pre, self.static_post, self.static_res = empty(n), empty(n), empty(n, n)
        self.reset_parameters()

    def coefficients(self) -> Coefficients:
        return StaticCoefficients(self.static_pre, self.static_post, self.static_res)

    def vectors_per_token(self) -> Mapping[str, int]:
        return {"static_res": 0}

    def start(self) -> Start:
        """As in `hc`."""
        return Start("approximate", 2e-5)

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        match name:
            case "static_pre" | "static_post" | "static_res":
                return plain_map(name.removeprefix("static_"), self.streams, self.index)
        return super().initial_value(name, generator)


@register_variant("mhc-static")
class StaticManifoldHyperConnection(WidenedConnection):
    """mHC (arXiv 2512.24880 Eq. 8-9) with h = bias alone: no projection, no gates.

    H_pre = sigmoid(b_pre), H_post = 2 sigmoid(b_post), H_res = Sinkhorn(exp(b_res)), columns and then rows.
    n (n + 2) parameters per sublayer, none of which decays. Against `mhc` it tells what the maps' dependence
    on the token is worth. The paper has no such arm; the biases start as in `mhc`.

    Args:
        streams: n.
        sinkhorn_iterations: rounds, the paper's t_max.
        contrast: of the start, as in `mhc`.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        sinkhorn_iterations: int = 20,
        contrast: float = 1.0,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index, streams=streams)
        self.sinkhorn_iterations = from_one_to("sinkhorn_iterations", sinkhorn_iterations, MOST_ITERATIONS)
        self.contrast = within("contrast", contrast, 0.0, 4.0)
        n = self.streams
        self.bias_pre, self.bias_post, self.bias_res = empty(n), empty(n), empty(n, n)
        self.reset_parameters()

    def coefficients(self) -> Coefficients:
        res = reference.sinkhorn(self.bias_res, self.sinkhorn_iterations)
        return StaticCoefficients(torch.sigmoid(self.bias_pre), 2 * torch.sigmoid(self.bias_post), res)

    def vectors_per_token(self) -> Mapping[str, int]:
        return {"bias_res": 0}

    def inert_parameters(self) -> frozenset[str]:
        """H_res's, where the streams are still copies (rows sum to 1) or there is one stream.

        In the last sublayer the gradient is only the Sinkhorn error of the column sums.
        """
        inert = self.index == 0 or self.streams == 1
        return frozenset({"bias_res"}) if inert else frozenset()

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        n, own = self.streams, self.index % self.streams
        match name:
            case "bias_pre":
                return one_against_others(n, own, self.contrast)
            case "bias_post":
                return balanced_writes(n, own, self.contrast)
            case "bias_res":
                return near_identity(n, self.contrast)
        return super().initial_value(name, generator)

"""Manifold-constrained Hyper-Connections: the mixing matrix is kept doubly stochastic."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mhc_bench.errors import choose
from mhc_bench.ops.types import MhcCoefficients
from mhc_bench.residual.options import at_least, within
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.widened import WidenedConnection

_MAPS = ("pre", "post", "res")


@register_variant("mhc")
class ManifoldHyperConnection(WidenedConnection):
    """mHC, arXiv 2512.24880 Eq. 3 and 7-9.

    With v = vec(x) / rms(vec(x)) over all n*C entries, and h = alpha (v phi^T) + bias for each map:
    H_pre = sigmoid(h_pre), H_post = 2 sigmoid(h_post), H_res = Sinkhorn(exp(h_res)), columns and then
    rows. phi absorbs the norm's gain.

    Initialisation. The paper gives alpha = 0.01 and nothing else. Here phi is normal with variance
    1 / (n*C), so that v phi^T has unit variance at every width and alpha alone sets the size of the
    dynamic part. The biases:

    `near_identity` (default): each is `contrast` (1) above or below the centre of its map. H_pre has +1 at
    stream k mod n and -1 elsewhere; H_res has +1 on the diagonal and -1 off it. A sigmoid's slope at 1 is
    0.197 of at most 0.25; the diagonal of H_res, sigmoid(2 contrast - log(n - 1)), is 0.71 for n = 4, with
    slope 0.205 of at most 0.25. So every map starts with four fifths of the sensitivity that it can have,
    and the larger part of each stream stays where it is. At contrast 2 (a diagonal logit of 4) H_res has a
    fifth of it left, at 4 (-8 off the diagonal) 1/250. H_post has +1 at stream k mod n and, elsewhere, the
    lower value with which its mean is exactly 1: the columns of H_res sum to 1, so the sum of the streams
    first takes each sublayer's output with weight 1, as a plain residual does. Each sublayer favours one
    stream, so the copies part at the first write.

    `uniform`: all biases 0, as in several public models. H_res is 1/n everywhere, H_pre 1/2 and H_post 1;
    only phi tells the streams apart.

    Args:
        streams: n.
        sinkhorn_iterations: rounds of columns and rows, the paper's t_max.
        initialisation: `near_identity` or `uniform`.
        contrast: of `near_identity`, up to 4; no effect on `uniform`.
        alpha: start value of the three gates.
        epsilon: of the RMS norm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        sinkhorn_iterations: int = 20,
        initialisation: Literal["near_identity", "uniform"] = "near_identity",
        contrast: float = 1.0,
        alpha: float = 0.01,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index, streams=streams, epsilon=epsilon)
        choose("initialisation", initialisation, ("near_identity", "uniform"))
        self.sinkhorn_iterations = at_least("sinkhorn_iterations", sinkhorn_iterations, 1)
        self.initial_alpha = within("alpha", alpha, 0.0, 10.0)
        self.contrast = within("contrast", contrast, 0.0, 4.0) if initialisation == "near_identity" else 0.0
        n, wide = self.streams, self.streams * width
        self.phi_pre, self.phi_post, self.phi_res = _empty(n, wide), _empty(n, wide), _empty(n * n, wide)
        self.bias_pre, self.bias_post, self.bias_res = _empty(n), _empty(n), _empty(n * n)
        self.alpha_pre, self.alpha_post, self.alpha_res = _empty(1), _empty(1), _empty(1)
        self.reset_parameters()

    def coefficients(self) -> MhcCoefficients:
        phi = self.phi_pre, self.phi_post, self.phi_res
        bias = self.bias_pre, self.bias_post, self.bias_res
        alpha = self.alpha_pre, self.alpha_post, self.alpha_res
        return MhcCoefficients(phi, bias, alpha, self.sinkhorn_iterations, self.epsilon)

    def decayed_parameters(self) -> frozenset[str]:
        """The projections; biases and gates never decay."""
        return frozenset(f"phi_{name}" for name in _MAPS)

    def gate_parameters(self) -> frozenset[str]:
        return frozenset(f"alpha_{name}" for name in _MAPS)

    def inert_parameters(self) -> frozenset[str]:
        """H_res's, where the streams are still copies (rows sum to 1) or there is one stream (H_res is 1).

        In the last sublayer their gradient is only the Sinkhorn error of the column sums: small, not zero.
        """
        inert = self.index == 0 or self.streams == 1
        return frozenset({"phi_res", "bias_res", "alpha_res"}) if inert else frozenset()

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        n = self.streams
        match name.partition("_"):
            case "phi", _, ("pre" | "post" | "res") as which:
                rows, wide = n * n if which == "res" else n, n * self.width
                return torch.randn(rows, wide, generator=generator, device="cpu") / math.sqrt(wide)
            case "bias", _, ("pre" | "post" | "res") as which:
                return self._initial_bias(which)
            case "alpha", _, ("pre" | "post" | "res"):
                return torch.full((1,), self.initial_alpha, device="cpu")
        return super().initial_value(name, generator)

    def _initial_bias(self, which: str) -> Tensor:
        n, contrast = self.streams, self.contrast
        own = torch.eye(n, device="cpu")
        if which == "res":
            return contrast * (2 * own - 1).flatten()
        own = own[self.index % n]
        if which == "pre":
            return contrast * (2 * own - 1)
        return torch.where(own > 0, contrast, _balancing_logit(n, contrast)) if n > 1 else 0 * own


def _empty(*shape: int) -> nn.Parameter:
    """A parameter to be filled; fp32 even in a model of lower precision."""
    return nn.Parameter(torch.empty(shape, dtype=torch.float32))


def _balancing_logit(n: int, logit: float) -> float:
    """What n - 1 entries must be for 2 sigmoid to have mean 1 over n entries, one of which is `logit`."""
    share = (n - 2 / (1 + math.exp(-logit))) / (n - 1) / 2
    return math.log(share / (1 - share))

"""Manifold-constrained Hyper-Connections: the mixing matrix is held on the doubly stochastic matrices."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mhc_bench.ops.mhc import mhc_read
from mhc_bench.residual.options import at_least, within
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.widened import WidenedConnection

_MAPS = ("pre", "post", "res")


@register_variant("mhc")
class ManifoldHyperConnection(WidenedConnection):
    """mHC, arXiv 2512.24880 Eq. 3 and 7-9.

    With v = vec(x) / rms(vec(x)) over all n*C entries and h = alpha (v phi^T) + bias for each of the three maps:
    H_pre = sigmoid(h_pre), H_post = 2 sigmoid(h_post), H_res = Sinkhorn(exp(h_res)), columns and then rows. The norm's
    gain is absorbed by phi.

    Initialisation. The paper gives alpha = 0.01 and nothing else. phi is normal with variance 1 / (n*C), so that
    v phi^T has unit variance at every width and alpha alone says how large the dynamic part is. For the biases:

    `near_identity` (default). Each bias is `contrast` (1) above or below the centre of its map: H_pre has +1 at stream
    k mod n and -1 elsewhere, H_res +1 on the diagonal and -1 off it. A sigmoid's slope at 1 is 0.197 of at most 0.25,
    and the diagonal of H_res, which is sigmoid(2 contrast - log(n - 1)), starts at 0.71 for n = 4 with slope 0.205 of
    at most 0.25: every map keeps about four fifths of the sensitivity it can have, and a majority of each stream
    stays where it is. At contrast 2 (a diagonal logit of 4) a fifth is left, at 4 (-8 off the diagonal) 0.4 %.
    H_post has +1 at stream k mod n and a common lower value elsewhere such that its mean is exactly 1: column sums of
    H_res are 1, so at the start the sum of the streams takes each sublayer's output with weight 1, as a plain residual
    does. Sublayers read and write different streams most, so the copies part at the first write.

    `uniform`. All biases 0, as in several public models: H_res = 1/n everywhere, H_pre = 1/2, H_post = 1; the streams
    are told apart by phi alone.

    Args:
        streams: n.
        sinkhorn_iterations: rounds of columns and rows.
        initialisation: `near_identity` or `uniform`.
        contrast: of `near_identity`.
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
        self.sinkhorn_iterations = at_least("sinkhorn_iterations", sinkhorn_iterations, 1)
        self.initial_alpha = within("alpha", alpha, 0.0, 10.0)
        self.contrast = within("contrast", contrast, 0.0, 4.0) if initialisation == "near_identity" else 0.0
        n, wide = self.streams, self.streams * width
        self.phi_pre, self.phi_post, self.phi_res = _empty(n, wide), _empty(n, wide), _empty(n * n, wide)
        self.bias_pre, self.bias_post, self.bias_res = _empty(n), _empty(n), _empty(n * n)
        self.alpha_pre, self.alpha_post, self.alpha_res = _empty(1), _empty(1), _empty(1)
        self.reset_parameters()

    def read_maps(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        phi = self.phi_pre, self.phi_post, self.phi_res
        bias = self.bias_pre, self.bias_post, self.bias_res
        alpha = self.alpha_pre, self.alpha_post, self.alpha_res
        return mhc_read(stream, phi, bias, alpha, self.sinkhorn_iterations, self.epsilon)

    def decayed_parameters(self) -> frozenset[str]:
        """The projections; biases and gates never decay."""
        return frozenset(f"phi_{name}" for name in _MAPS)

    def inert_parameters(self) -> frozenset[str]:
        """H_res, where the streams are still copies (its rows sum to 1) and where there is one stream (it is 1)."""
        inert = self.index == 0 or self.streams == 1
        return frozenset(f"{kind}_res" for kind in _KINDS) if inert else frozenset()

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        kind, _, map_name = name.partition("_")
        if name not in dict(self.named_parameters()):
            return super().initial_value(name, generator)
        if kind == "phi":
            shape = self._rows()[_MAPS.index(map_name)], self.streams * self.width
            return torch.randn(shape, generator=generator, device="cpu") / math.sqrt(shape[1])
        if kind == "alpha":
            return torch.full((1,), self.initial_alpha, device="cpu")
        return self._initial_bias(map_name)

    def _initial_bias(self, map_name: str) -> Tensor:
        n, c = self.streams, self.contrast
        own = torch.eye(n, device="cpu")
        if map_name == "res":
            return (c * (2 * own - 1)).flatten()
        own = own[self.index % n]
        if map_name == "pre":
            return c * (2 * own - 1)
        return torch.where(own > 0, c, _balancing_logit(n, c)) if n > 1 else torch.zeros(1, device="cpu")

    def _rows(self) -> tuple[int, int, int]:
        return self.streams, self.streams, self.streams * self.streams


_KINDS = ("phi", "bias", "alpha")


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=torch.float32))


def _balancing_logit(n: int, logit: float) -> float:
    """The logit of n - 1 entries that makes the mean of 2 sigmoid over n entries 1, when one entry has `logit`."""
    share = (n - 2 / (1 + math.exp(-logit))) / (n - 1) / 2
    return math.log(share / (1 - share))

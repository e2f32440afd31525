"""Manifold-constrained Hyper-Connections: the mixing matrix is kept doubly stochastic."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mhc_bench.errors import UsageError, choose
from mhc_bench.limits import MOST_ITERATIONS
from mhc_bench.ops import reference
from mhc_bench.ops.precision import without_autocast
from mhc_bench.ops.types import Coefficients, MhcCoefficients, ProjectedCoefficients, Triple
from mhc_bench.residual.options import from_one_to, within
from mhc_bench.residual.projected import (
    ProjectedConnection,
    empty,
    near_identity,
    one_against_others,
    square,
)
from mhc_bench.residual.registry import register_variant

Initialisation = Literal["near_identity", "uniform", "deepseek_v4", "mhc_lite"]
Reduction = Literal["sum", "mean", "learned"]
Order = Literal["columns_rows", "rows_columns"]
MapPrecision = Literal["fp32", "bf16"]
_DEEPSEEK_STD = 0.02
_MHC_LITE_OFF_DIAGONAL = -8.0


@register_variant("mhc")
class ManifoldHyperConnection(ProjectedConnection):
    """mHC, arXiv 2512.24880 Eq. 3 and 7-9.

    With v = vec(x) / rms(vec(x)) over all n*C entries, and h = alpha (v phi^T) + bias for each map:
    H_pre = sigmoid(h_pre), H_post = 2 sigmoid(h_post), H_res = Sinkhorn(exp(h_res)), columns and then
    rows. phi absorbs the norm's gain.

    Initialisation. The paper gives alpha = 0.01 and nothing else. Here phi is normal with variance
    1 / (n*C), so that v phi^T has unit variance at every width and alpha alone sets the size of the
    dynamic part. The biases:

    `near_identity` (default): each is `contrast` (1) above or below the centre of its map. H_pre has +1 at
    stream k mod n and -1 elsewhere; H_res has +1 on the diagonal and -1 off it, which is an off-diagonal
    bias of -2 contrast relative to the diagonal. A sigmoid's slope at 1 is 0.197 of at most 0.25; the
    diagonal of H_res, sigmoid(2 contrast - log(n - 1)), is 0.71 for n = 4, with slope 0.205 of at most
    0.25. So every map starts with four fifths of the sensitivity that it can have, and the larger part of
    each stream stays where it is. At contrast 2 (a diagonal logit of 4) H_res has a fifth of it left, at 4
    (-8 off the diagonal) 1/250. H_post has +1 at stream k mod n and, elsewhere, the lower value with which
    its mean is exactly 1: the columns of H_res sum to 1, so the sum of the streams first takes each
    sublayer's output with weight 1, as a plain residual does. Each sublayer favours one stream, so the
    copies part at the first write.

    `uniform`: all biases 0, as in several public models. H_res is 1/n everywhere, H_pre 1/2 and H_post 1;
    only phi tells the streams apart.

    `deepseek_v4`: as transformers fills DeepSeek-V4's connections: all biases 0, phi normal with standard
    deviation 0.02 at every width. Its gates start at 1: state `alpha: 1`.

    `mhc_lite`: as the code of mHC-lite and KromHC starts the mHC that they compare with: phi 0, H_pre and
    H_post with +1 at stream k mod n and -1 elsewhere, H_res with 0 on the diagonal and -8 off it.

    Args:
        streams: n.
        sinkhorn_iterations: rounds, the paper's t_max.
        initialisation: `near_identity`, `uniform`, `deepseek_v4` or `mhc_lite`.
        contrast: of `near_identity`, up to 4; no effect on the others.
        alpha: start value of the three gates.
        epsilon: of the RMS norm.
        reduction: of the streams after the last sublayer. The paper says nothing. `sum` (default: HC's and
            the public reproductions' rule); `mean`, the same but for the final norm's epsilon; `learned`,
            DeepSeek-V4's head: sigmoid weights from a projection of its own, with bias and gate, which the
            last sublayer's connection holds. It starts as the mean's direction: bias 0.
        sinkhorn_order: `columns_rows` (the paper's: rows sum to 1 exactly) or `rows_columns` (Liger,
            Megatron and others: columns do).
        additive_epsilon: DeepSeek-V4's `hc_eps`: the start is a softmax plus it, each sum gets it before
            the division, and H_pre and the head's weights get it on top. 0 is the paper.
        diagonal_offset: start of H_res's bias alone: its diagonal this far above what is off it, whatever the
            initialisation says; null leaves it to that.
        map_precision: `bf16` is the ablation of the rule that maps are computed in fp32: phi, the projection,
            the logits, the gates and every Sinkhorn iterate are rounded to bf16; sums run in fp32.

    Another order, an epsilon or bf16 maps are computed by composition, slower than the fused operations.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        sinkhorn_iterations: int = 20,
        initialisation: Initialisation = "near_identity",
        contrast: float = 1.0,
        alpha: float = 0.01,
        epsilon: float = 1e-6,
        reduction: Reduction = "sum",
        sinkhorn_order: Order = "columns_rows",
        additive_epsilon: float = 0.0,
        diagonal_offset: float | None = None,
        map_precision: MapPrecision = "fp32",
    ) -> None:
        within("contrast", contrast, 0.0, 4.0)
        super().__init__(
            width=width,
            depth=depth,
            index=index,
            streams=streams,
            logits=streams * streams,
            contrast=contrast if initialisation == "near_identity" else 0.0,
            alpha=alpha,
            epsilon=epsilon,
        )
        choose("initialisation", initialisation, ("near_identity", "uniform", "deepseek_v4", "mhc_lite"))
        choose("reduction", reduction, ("sum", "mean", "learned"))
        choose("sinkhorn_order", sinkhorn_order, ("columns_rows", "rows_columns"))
        self.map_precision = choose("map_precision", map_precision, ("fp32", "bf16"))
        if diagonal_offset is not None and not 0 <= diagonal_offset <= 16:
            raise UsageError(f"diagonal_offset {diagonal_offset}: expected 0 to 16, or null")
        self.diagonal_offset = diagonal_offset
        self.sinkhorn_iterations = from_one_to("sinkhorn_iterations", sinkhorn_iterations, MOST_ITERATIONS)
        self.initialisation, self.reduction, self.sinkhorn_order = initialisation, reduction, sinkhorn_order
        self.additive_epsilon = additive_epsilon and within("additive_epsilon", additive_epsilon, 0.0, 1e-2)
        if self.has_head:
            self.head_phi = empty(self.streams, self.streams * width)
            self.head_bias, self.head_alpha = empty(self.streams), empty(1)
        self.reset_parameters()

    @property
    def has_head(self) -> bool:
        """Whether this connection collapses the streams with learned weights."""
        return self.reduction == "learned" and self.index == self.depth - 1

    def coefficients(self) -> Coefficients:
        if self.map_precision == "bf16":
            phi = torch.cat(self.own("phi"))
            return ProjectedCoefficients(phi.bfloat16().to(phi.dtype), self.epsilon, self.rounded_maps)
        if self.sinkhorn_order != "columns_rows" or self.additive_epsilon:
            return super().coefficients()
        phis, bias, alpha = ((each[0], each[1], each[2]) for each in map(self.own, ("phi", "bias", "alpha")))
        return MhcCoefficients(phis, bias, alpha, self.sinkhorn_iterations, self.epsilon)

    def activate(self, projection: Tensor) -> Triple:
        pre, post, res = super().activate(projection)
        return pre + self.additive_epsilon, post, res

    def rounded_maps(self, projection: Tensor) -> Triple:
        """`activate` with everything rounded to bf16 on the way."""
        with without_autocast(projection):
            pre, post, res = (
                each.bfloat16() for each in self.logits(projection.bfloat16().to(projection.dtype))
            )
            rounded = torch.sigmoid(pre) + self.additive_epsilon, 2 * torch.sigmoid(post), self.mixing(res)
            pre, post, mixed = (each.to(projection.dtype) for each in rounded)
            return pre, post, mixed

    def mixing(self, logits: Tensor) -> Tensor:
        matrix = square(logits, self.streams)
        if self.sinkhorn_order == "rows_columns":
            transposed = self._columns_then_rows(matrix.mT).mT
            return transposed.clone(memory_format=torch.contiguous_format)
        return self._columns_then_rows(matrix)

    def _columns_then_rows(self, logits: Tensor) -> Tensor:
        if self.additive_epsilon or self.map_precision == "bf16":
            return sinkhorn_with_epsilon(logits, self.sinkhorn_iterations, self.additive_epsilon)
        return reference.sinkhorn(logits, self.sinkhorn_iterations)

    def collapse(self, stream: Tensor) -> Tensor:
        if self.reduction == "mean":
            return stream.mean(-2)
        if not self.has_head:
            return super().collapse(stream)
        projection = self.operations.project(stream, self.head_phi, self.epsilon)
        weights = torch.sigmoid(self.head_alpha * projection + self.head_bias) + self.additive_epsilon
        return self.operations.aggregate(stream, weights)

    def decayed_parameters(self) -> frozenset[str]:
        """The projections; biases and gates never decay."""
        return super().decayed_parameters() | ({"head_phi"} if self.has_head else set())

    def inert_parameters(self) -> frozenset[str]:
        """H_res's, where exact sums hide it: rows from streams that are still copies, columns from a sum.

        With one stream H_res is a constant. In the paper's order the last sublayer's gradient is only the
        Sinkhorn error of the column sums: small, not zero.
        """
        exact = not self.additive_epsilon and self.map_precision == "fp32"
        rows_exact = exact and self.sinkhorn_order == "columns_rows"
        columns_exact = exact and self.sinkhorn_order == "rows_columns"
        at_end = self.index == self.depth - 1 and self.reduction != "learned"
        inert = self.streams == 1 or (self.index == 0 and rows_exact) or (at_end and columns_exact)
        return self.mixing_parameters() if inert else frozenset()

    def initial_projection(self, rows: int, generator: torch.Generator) -> Tensor:
        if self.initialisation == "mhc_lite":
            return torch.zeros(rows, self.streams * self.width, device="cpu")
        if self.initialisation == "deepseek_v4":
            wide = self.streams * self.width
            return torch.randn(rows, wide, generator=generator, device="cpu") * _DEEPSEEK_STD
        return super().initial_projection(rows, generator)

    def initial_bias(self, which: str) -> Tensor:
        if self.initialisation == "mhc_lite" and which != "res":
            return one_against_others(self.streams, self.index % self.streams, 1.0)
        return super().initial_bias(which)

    def initial_mixing(self) -> Tensor:
        if self.diagonal_offset is not None:
            return near_identity(self.streams, self.diagonal_offset / 2).flatten()
        if self.initialisation == "mhc_lite":
            return _MHC_LITE_OFF_DIAGONAL * (1 - torch.eye(self.streams, device="cpu")).flatten()
        return near_identity(self.streams, self.contrast).flatten()

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        if self.has_head:
            match name:
                case "head_phi":
                    return self.initial_projection(self.streams, generator)
                case "head_bias":
                    return torch.zeros(self.streams, device="cpu")
                case "head_alpha":
                    return torch.full((1,), self.initial_alpha, device="cpu")
        return super().initial_value(name, generator)


def sinkhorn_with_epsilon(logits: Tensor, iterations: int, epsilon: float) -> Tensor:
    """DeepSeek-V4's Sinkhorn of logits [..., n, n] as [out, in]: columns and then rows, `iterations` times.

    The first columns are a softmax plus `epsilon`; every later sum gets `epsilon` before the division.
    """
    matrix = torch.softmax(logits, dim=-2) + epsilon
    matrix = matrix / (matrix.sum(-1, keepdim=True) + epsilon)
    for _ in range(iterations - 1):
        matrix = matrix / (matrix.sum(-2, keepdim=True) + epsilon)
        matrix = matrix / (matrix.sum(-1, keepdim=True) + epsilon)
    return matrix

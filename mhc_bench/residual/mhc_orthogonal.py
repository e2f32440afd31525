"""Orthogonal mixing: streams are rotated, so nothing grows, shrinks or is averaged away."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.residual.options import within
from mhc_bench.residual.projected import ProjectedConnection
from mhc_bench.residual.registry import register_variant


@register_variant("mhc-orthogonal")
class OrthogonalHyperConnection(ProjectedConnection):
    """mHC with H_res = (I + A)^-1 (I - A) in SO(n), A = U - U^T, U strictly upper triangular from h_res.

    The Cayley transform of n(n-1)/2 free logits, row by row above the diagonal: every rotation without an
    eigenvalue of -1. All singular values are 1, so unlike a doubly stochastic matrix it cannot average
    streams away. v, H_pre and H_post are mHC's. (n(n-1)/2 + 2n) (n*C + 1) + 3 parameters per sublayer.

    Source: JPmHC (arXiv 2602.18308) has an orthogonal H_res by two steps of an iterative Cayley transform
    (known second-hand; its H_pre and H_post are softmaxes). Chosen here: the exact transform, by solving an
    n x n system per token, and mHC's H_pre and H_post, so that it differs from `mhc` in H_res alone; H_res
    starts at the identity (bias 0).

    Args:
        streams: n.
        contrast: of the start of H_pre and H_post, as in `mhc`.
        alpha: start value of the gates.
        epsilon: of the RMS norm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        contrast: float = 1.0,
        alpha: float = 0.01,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(
            width=width,
            depth=depth,
            index=index,
            streams=streams,
            logits=streams * (streams - 1) // 2,
            contrast=within("contrast", contrast, 0.0, 4.0),
            alpha=alpha,
            epsilon=epsilon,
        )
        self.reset_parameters()

    def mixing(self, logits: Tensor) -> Tensor:
        n = self.streams
        row, column = torch.triu_indices(n, n, 1, device=logits.device)
        upper = logits.new_zeros(*logits.shape[:-1], n, n)
        upper[..., row, column] = logits
        skew = upper - upper.mT
        identity = torch.eye(n, dtype=logits.dtype, device=logits.device)
        rotation: Tensor = torch.linalg.solve(identity + skew, identity - skew)
        return rotation

    def initial_mixing(self) -> Tensor:
        return torch.zeros(self.streams * (self.streams - 1) // 2, device="cpu")

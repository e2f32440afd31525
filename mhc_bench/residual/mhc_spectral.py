"""Unit row and column sums without non-negativity: mixing inside a spectral-norm ball."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.residual.options import within
from mhc_bench.residual.projected import ProjectedConnection, near_identity, square
from mhc_bench.residual.registry import register_variant


@register_variant("mhc-spectral")
class SpectralHyperConnection(ProjectedConnection):
    """mHC with H_res = J/n + U S U^T, S = M / max(1, ||M||_2), M the (n-1) x (n-1) matrix of h_res.

    J is all ones and U [n, n-1] an orthonormal basis of the vectors that sum to 0 (Helmert's), so all rows
    and columns sum to 1 exactly and the spectral norm is at most 1: mHC's guarantees without its non-negative
    entries. v, H_pre and H_post are mHC's. ((n-1)^2 + 2n) (n*C + 1) + 3 parameters per sublayer.

    Source: the set is that of sHC (arXiv 2603.20896), known second-hand; its own parametrisation was not
    found, and this direct one is chosen here. So is the start: S a multiple of the identity, with which H_res
    is the matrix that `mhc` starts from (diagonal 0.71 at n = 4).

    Args:
        streams: n.
        contrast: of the start, as in `mhc`.
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
            logits=(streams - 1) ** 2,
            contrast=within("contrast", contrast, 0.0, 4.0),
            alpha=alpha,
            epsilon=epsilon,
        )
        self.reset_parameters()

    def inert_parameters(self) -> frozenset[str]:
        """H_res's in the first sublayer (copies: rows sum to 1) and in the last (a sum: columns do)."""
        return self.mixing_parameters() if self.index in (0, self.depth - 1) else frozenset()

    def mixing(self, logits: Tensor) -> Tensor:
        n = self.streams
        if n == 1:
            return logits.new_ones(*logits.shape[:-1], 1, 1)
        free = square(logits, n - 1)
        norm = torch.linalg.matrix_norm(free, ord=2, keepdim=True)
        basis = sum_zero_basis(n, logits)
        mixed: Tensor = basis @ (free / norm.clamp_min(1.0)) @ basis.mT + 1 / n
        return mixed

    def initial_mixing(self) -> Tensor:
        n = self.streams
        start = reference.sinkhorn(near_identity(n, self.contrast), 1)
        basis = sum_zero_basis(n, start)
        return (basis.mT @ start @ basis).flatten()


def sum_zero_basis(n: int, like: Tensor) -> Tensor:
    """[n, n-1]: orthonormal columns that sum to 0; column k is 1 in its first k rows and -k in the next."""
    row = torch.arange(n, dtype=like.dtype, device=like.device).unsqueeze(1)
    k = torch.arange(1, n, dtype=like.dtype, device=like.device)
    return ((row < k).to(like.dtype) - k * (row == k)) / torch.sqrt(k * (k + 1))

"""mHC without Sinkhorn: what the constraint on the mixing matrix is worth."""

from __future__ import annotations

from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.residual.options import within
from mhc_bench.residual.projected import ProjectedConnection, near_identity, square
from mhc_bench.residual.registry import register_variant


@register_variant("mhc-unconstrained")
class UnconstrainedHyperConnection(ProjectedConnection):
    """mHC (arXiv 2512.24880 Eq. 7-8) with H_res = h_res = alpha (v phi^T) + bias: any matrix.

    HC and mHC differ in more than the constraint (the projection, the gates' range, tanh), so this arm, and
    not HC, is what tells what the constraint does. Same parameters as mHC. Nothing bounds the product of
    H_res over depth.

    Chosen here (no paper has this arm): everything starts as in `mhc`, H_res included. Its bias is the doubly
    stochastic matrix that mHC's `near_identity` start has, diagonal sigmoid(2 contrast - log(n - 1)), 0.71
    at n = 4.

    Args:
        streams: n.
        contrast: of the start, as in `mhc`.
        alpha: start value of the three gates. For H_res it is the size of its dynamic part itself, not of a
            logit's.
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
            logits=streams * streams,
            contrast=within("contrast", contrast, 0.0, 4.0),
            alpha=alpha,
            epsilon=epsilon,
        )
        self.reset_parameters()

    def mixing(self, logits: Tensor) -> Tensor:
        return square(logits, self.streams)

    def initial_mixing(self) -> Tensor:
        # one round is exact for a matrix with one value on the diagonal and one off it
        return reference.sinkhorn(near_identity(self.streams, self.contrast), 1).flatten()

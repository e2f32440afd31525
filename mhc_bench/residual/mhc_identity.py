"""Identity HC: the streams are never mixed; only how they are read and written is learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mhc_bench.ops.precision import widened, without_autocast
from mhc_bench.residual.contract import Carry, ResidualConnection
from mhc_bench.residual.options import within
from mhc_bench.residual.projected import ProjectedConnection
from mhc_bench.residual.registry import register_variant


class PostMap(NamedTuple):
    """The carry: all that a write without mixing needs."""

    post: Tensor
    """[B, T, n]: H_post."""


@register_variant("mhc-identity")
class IdentityHyperConnection(ProjectedConnection):
    """mHC with H_res = I (iHC): x' = x + H_post^T F(H_pre x), H_pre and H_post as in mHC.

    Per sublayer 2n (n*C + 1) + 2 parameters, and no n x n work: `write` adds a multiple of F to each stream.
    It is the row that the mHC paper's Table 1 lacks, on mHC's side, and the cheapest control of whether
    H_res matters.

    Source: a public write-up of February 2026 and several public models (not read in the original); the mHC
    paper's published version is said to have it too. Chosen here: everything but H_res starts as in `mhc`.

    Args:
        streams: n.
        contrast: of the start of H_pre and H_post, as in `mhc`.
        alpha: start value of the two gates.
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
            logits=0,
            contrast=within("contrast", contrast, 0.0, 4.0),
            alpha=alpha,
            epsilon=epsilon,
        )
        self.reset_parameters()

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        projection = self.operations.project(stream, torch.cat(self.own("phi")), self.epsilon)
        pre, post = self.logits(projection)
        return self.operations.aggregate(stream, torch.sigmoid(pre)), PostMap(2 * torch.sigmoid(post))

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        (post,) = carry
        with without_autocast(stream):
            added = post.unsqueeze(-1) * widened(update).unsqueeze(-2)
            written: Tensor = (widened(stream) + added).to(stream.dtype)
            return written

    def fuses_with(self, next: ResidualConnection) -> bool:
        # the shared fused operation mixes; here a write and a read are cheaper
        return False

    def mixing(self, logits: Tensor) -> Tensor:
        n = self.streams
        identity = torch.eye(n, dtype=logits.dtype, device=logits.device)
        return identity.expand(*logits.shape[:-1], n, n)

    def initial_mixing(self) -> Tensor:
        return torch.empty(0, device="cpu")

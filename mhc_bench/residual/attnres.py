"""Attention Residuals: each sublayer attends over what the earlier ones put out."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.limits import MOST_LAYERS
from mhc_bench.ops import reference
from mhc_bench.ops.precision import widened, without_autocast
from mhc_bench.residual.contract import Carry, ResidualConnection
from mhc_bench.residual.options import within
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.slots import first_slot, weighted_sum


@register_variant("attnres")
class AttentionResidual(ResidualConnection):
    """Attention Residuals, arXiv 2603.15031, full and block form: there is no sum that flows on.

    The input of sublayer k is sum over i of a_i v_i with a = softmax over i of w_k . RMSNorm(v_i), where v_0
    is the embedding and v_i the output of sublayer i - 1. In the block form outputs are summed within a
    block of consecutive layers: the sources are the embedding, the sums of the blocks before, and the
    current block's sum so far. The stream holds the sources, [B, T, sources so far, C], and grows.

    w_k [C] starts at 0, as in the paper: a plain mean. It has no gradient in sublayer 0, which has one
    source. C parameters per sublayer, C more at the end; none decays. The norm's gain is absorbed in w.

    Chosen here: the final norm gets the same kind of mean over all sources with a vector of its own, which
    the last sublayer's connection holds. Weights are computed and applied in fp32.

    Args:
        blocks: N of the block form, in whole layers of equal number (the last may have fewer); the paper
            uses about 8. 0 is the full form: each sublayer's output is a source.
        epsilon: of the RMS norm.
    """

    def __init__(self, *, width: int, depth: int, index: int, blocks: int = 0, epsilon: float = 1e-6) -> None:
        super().__init__(width=width, depth=depth, index=index)
        if not 0 <= blocks <= MOST_LAYERS:
            raise UsageError(f"blocks {blocks}: expected 1 to {MOST_LAYERS} blocks, or 0 for the full form")
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)
        layers = (depth + 1) // 2
        self.block_sublayers = 2 * -(-layers // blocks) if blocks else 1
        self.query = empty(width)
        if index == depth - 1:
            self.final_query = empty(width)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return first_slot(hidden)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return self._attended(stream, self.query), ()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        added = update.unsqueeze(-2).to(stream.dtype)
        if self.index % self.block_sublayers == 0:
            return torch.cat([stream, added], dim=-2)
        return torch.cat([stream[..., :-1, :], stream[..., -1:, :] + added], dim=-2)

    def collapse(self, stream: Tensor) -> Tensor:
        return self._attended(stream, self.final_query if self.index == self.depth - 1 else self.query)

    def inert_parameters(self) -> frozenset[str]:
        return frozenset({"query"}) if self.index == 0 else frozenset()

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        if name in ("query", "final_query"):
            return torch.zeros(self.width, device="cpu")
        return super().initial_value(name, generator)

    def _attended(self, sources: Tensor, query: Tensor) -> Tensor:
        """[..., s, C] and [C] to [..., C]."""
        with without_autocast(sources):
            keys = reference.rms_normalised(widened(sources), self.epsilon)
            # a product and a sum: a matrix-vector product's last bits depend on where the vector lies
            weights = torch.softmax((keys * query).sum(-1), dim=-1)
        return weighted_sum(sources, weights)

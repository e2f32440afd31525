"""LAuReL: the residual is scaled, and gets a low-rank linear map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mhc_bench.errors import UsageError, choose
from mhc_bench.ops.precision import widened, without_autocast
from mhc_bench.residual.contract import Carry, ResidualConnection, Start
from mhc_bench.residual.options import at_least
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.slots import unchanged


@register_variant("laurel")
class LearnedAugmentedResidual(ResidualConnection):
    """LAuReL, arXiv 2411.07501: x' = alpha F(x) + beta (x + A B x).

    `rw` (residual weights) learns alpha and beta alone, `lr` (low rank) A [C, r] and B [r, C] alone, `rw+lr`
    both. Known second-hand: A starts with orthonormal columns and B at 0. 2 and 2 C r parameters per
    sublayer; A and B decay.

    Chosen here: alpha and beta are free and start at 1 (bounded forms are described too), so the start is
    exactly the plain residual; the combination scales the low-rank part with beta; `rw+lr` is the default
    because the paper's language models use it; the rank. The form that adds earlier activations (PA) is left
    out: `cheap-skip` and `denseformer` stand for it.

    Args:
        form: `rw`, `lr` or `rw+lr`.
        rank: r; no effect on `rw`.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        form: Literal["rw", "lr", "rw+lr"] = "rw+lr",
        rank: int = 4,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index)
        choose("form", form, ("rw", "lr", "rw+lr"))
        self.weighs, self.adds_low_rank = "rw" in form, "lr" in form
        self.rank = at_least("rank", rank, 1)
        if rank > width:
            raise UsageError(f"rank {rank}: expected at most the width {width}")
        if self.weighs:
            self.alpha, self.beta = empty(1), empty(1)
        if self.adds_low_rank:
            self.up, self.down = empty(width, rank), empty(rank, width)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return unchanged(hidden)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return unchanged(stream), ()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        with without_autocast(stream):
            kept, added = widened(stream), widened(update)
            if self.adds_low_rank:
                kept = kept + kept @ self.down.T @ self.up.T
            if self.weighs:
                kept, added = self.beta * kept, self.alpha * added
            return (kept + added).to(stream.dtype)

    def collapse(self, stream: Tensor) -> Tensor:
        return unchanged(stream)

    def decayed_parameters(self) -> frozenset[str]:
        return frozenset({"up", "down"} if self.adds_low_rank else ())

    def start(self) -> Start:
        return Start("exact")

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        match name:
            case "alpha" | "beta":
                return torch.ones(1, device="cpu")
            case "up":
                drawn = torch.randn(
                    self.width, self.rank, generator=generator, dtype=torch.float64, device="cpu"
                )
                orthonormal: Tensor = torch.linalg.qr(drawn).Q
                return orthonormal.float()
            case "down":
                return torch.zeros(self.rank, self.width, device="cpu")
        return super().initial_value(name, generator)

"""DenseFormer: after each layer a learned mean over all layers' outputs takes the state's place."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.limits import MOST_LAYERS
from mhc_bench.residual.contract import Carry, ResidualConnection, Start
from mhc_bench.residual.options import from_one_to
from mhc_bench.residual.projected import empty
from mhc_bench.residual.registry import register_variant
from mhc_bench.residual.slots import copies, slot, weighted_sum


@register_variant("denseformer")
class DenseFormer(ResidualConnection):
    """DenseFormer's depth-weighted average (DWA), arXiv 2402.02622: Y_i = sum over j <= i of a_ij X_j.

    X_0 is the embedding, X_i the output of layer i (attention and MLP with plain residual connections) on
    Y_{i-1}, and Y_i what the next layer gets. One weight a_ij per pair, the same for every token and channel,
    not decayed; a_ii starts at 1 and the others at 0, so the start is the plain residual. The weights of
    layer i stand with its MLP's connection. The stream holds X_0, ..., X_i and then the state,
    [B, T, i + 2, C], and grows. Formula, start, dilation and period are those of the authors' code.

    Args:
        dilation: only X_j with j = i modulo this are averaged.
        period: only after every so many layers; elsewhere Y_i = X_i.
    """

    def __init__(self, *, width: int, depth: int, index: int, dilation: int = 1, period: int = 1) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.dilation = from_one_to("dilation", dilation, MOST_LAYERS)
        self.period = from_one_to("period", period, MOST_LAYERS)
        self.layer = index // 2 + 1
        self.ends_layer = index % 2 == 1
        if self.averages:
            self.weight = empty(self.layer // dilation + 1)
        self.reset_parameters()

    @property
    def averages(self) -> bool:
        """Whether this connection's write ends with an average."""
        return self.ends_layer and self.layer % self.period == 0

    def expand(self, hidden: Tensor) -> Tensor:
        return copies(hidden, 2)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return slot(stream, -1), ()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        state = stream[..., -1:, :] + update.unsqueeze(-2).to(stream.dtype)
        outputs = torch.cat([stream[..., :-1, :], state], dim=-2)
        if not self.ends_layer:
            return outputs
        front = self._average(outputs).unsqueeze(-2) if self.averages else state
        return torch.cat([outputs, front], dim=-2)

    def collapse(self, stream: Tensor) -> Tensor:
        return slot(stream, -1)

    def start(self) -> Start:
        return Start("exact")

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        if name == "weight" and self.averages:
            start = torch.zeros(self.layer // self.dilation + 1, device="cpu")
            start[-1] = 1.0
            return start
        return super().initial_value(name, generator)

    def _average(self, outputs: Tensor) -> Tensor:
        """[..., i + 1, C] to [..., C]."""
        chosen = outputs[..., self.layer % self.dilation :: self.dilation, :]
        return weighted_sum(chosen, self.weight)

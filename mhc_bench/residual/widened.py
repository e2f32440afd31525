"""What HC and mHC share: n copies in, n streams mixed by maps around each sublayer, their sum out."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.residual.contract import Carry, Maps, ResidualConnection
from mhc_bench.residual.options import at_least, within


class WriteMaps(NamedTuple):
    """The carry of a widened connection."""

    post: Tensor
    res: Tensor


class WidenedConnection(ResidualConnection):
    """A connection whose stream is [B, T, n, C]; subclasses say how the maps come from the stream.

    Maps and their application are computed in fp32 at least, whatever the stream's dtype and autocast say; the
    stream and the hidden state keep the stream's dtype.
    """

    def __init__(self, *, width: int, depth: int, index: int, streams: int, epsilon: float) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.streams = at_least("streams", streams, 1)
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)

    @abstractmethod
    def compute_maps(self, stream: Tensor) -> Maps:
        """The maps of a stream [B, T, n, C] that is fp32 or wider, outside autocast."""

    def expand(self, hidden: Tensor) -> Tensor:
        return hidden.unsqueeze(-2).repeat_interleave(self.streams, dim=-2)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        with torch.autocast(stream.device.type, enabled=False):
            wide = _wide(stream)
            maps = self.compute_maps(wide)
            return reference.read(wide, maps.pre).to(stream.dtype), WriteMaps(maps.post, maps.res)

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        post, res = carry
        with torch.autocast(stream.device.type, enabled=False):
            return reference.write(_wide(stream), _wide(update), post, res).to(stream.dtype)

    def collapse(self, stream: Tensor) -> Tensor:
        return stream.sum(-2)

    def maps(self, stream: Tensor) -> Maps:
        with torch.autocast(stream.device.type, enabled=False):
            return self.compute_maps(_wide(stream))


def _wide(x: Tensor) -> Tensor:
    """`x` in fp32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

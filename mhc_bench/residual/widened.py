"""What HC and mHC share: n copies in, n streams mixed by maps around each sublayer, their sum out."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from mhc_bench.ops.streams import write
from mhc_bench.residual.contract import Carry, Maps, ResidualConnection
from mhc_bench.residual.options import at_least, within


class WriteMaps(NamedTuple):
    """The carry of a widened connection."""

    post: Tensor
    """[B, T, n]: H_post."""
    res: Tensor
    """[B, T, n, n] as [out, in]: H_res."""


class WidenedConnection(ResidualConnection):
    """A connection whose stream is [B, T, n, C]; subclasses say how the maps come from the stream.

    Maps are computed and applied in fp32 at least, whatever the stream's dtype and autocast say; the
    stream and the hidden state keep the stream's dtype.
    """

    def __init__(self, *, width: int, depth: int, index: int, streams: int, epsilon: float) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.streams = at_least("streams", streams, 1)
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)

    @abstractmethod
    def read_maps(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The sublayer's input [B, T, C] and the maps pre, post and res of a stream [B, T, n, C]."""

    def expand(self, hidden: Tensor) -> Tensor:
        copies = hidden.unsqueeze(-2).expand(*hidden.shape[:-1], self.streams, self.width)
        return copies.clone(memory_format=torch.contiguous_format)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        hidden, _, post, res = self.read_maps(stream)
        return hidden, WriteMaps(post, res)

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        post, res = carry
        return write(stream, update, post, res)

    def collapse(self, stream: Tensor) -> Tensor:
        return stream.sum(-2)

    def maps(self, stream: Tensor) -> Maps:
        return Maps(*self.read_maps(stream)[1:])

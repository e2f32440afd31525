"""What HC and mHC share: n copies in, n streams mixed by maps around each sublayer, their sum out."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from mhc_bench.ops.choice import operations_named
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.types import Coefficients, Read
from mhc_bench.residual.contract import Carry, Maps, ResidualConnection
from mhc_bench.residual.options import number_of
from mhc_bench.residual.slots import copies, unchanged


class WriteMaps(NamedTuple):
    """The carry of a widened connection."""

    post: Tensor
    """[B, T, n]: H_post."""
    res: Tensor
    """[B, T, n, n] as [out, in]: H_res."""
    through: Tensor
    """[B, T, n, C]: the stream as the operations want it back (see `mhc_bench.ops.types.Read`)."""


class WidenedConnection(ResidualConnection):
    """A connection whose stream is [B, T, n, C]; subclasses say what the maps are made from.

    Maps are computed and applied in fp32 at least, whatever the stream's dtype and autocast say; the
    stream and the hidden state keep the stream's dtype.
    """

    def __init__(self, *, width: int, depth: int, index: int, streams: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.streams = number_of("streams", streams)
        self.operations = operations_named("eager")

    @abstractmethod
    def coefficients(self) -> Coefficients:
        """Own parameters and constants, from which a stream's maps follow."""

    def use_operations(self, operations: Operations) -> None:
        self.operations = operations

    def expand(self, hidden: Tensor) -> Tensor:
        return copies(hidden, self.streams)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return _carried(self.operations.read(stream, self.coefficients()))

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        post, res, through = carry
        return self.operations.write(through, update, post, res)

    def write_read(
        self, stream: Tensor, update: Tensor, carry: Carry, next: ResidualConnection
    ) -> tuple[Tensor, Tensor, Carry]:
        if isinstance(next, WidenedConnection) and self.fuses_with(next):
            return next.read_written(update, carry)
        return super().write_read(stream, update, carry, next)

    def fuses_with(self, next: ResidualConnection) -> bool:
        return isinstance(next, WidenedConnection)

    def read_written(self, update: Tensor, carry: Carry) -> tuple[Tensor, Tensor, Carry]:
        """What the connection before would write, and this one's read of it: (stream, hidden, carry).

        The parameters used are this connection's, so FSDP2 gathers them here.
        """
        post, res, through = carry
        written, read = self.operations.write_read(through, update, post, res, self.coefficients())
        return written, *_carried(read)

    def collapse(self, stream: Tensor) -> Tensor:
        return stream.sum(-2)

    def maps(self, stream: Tensor) -> Maps:
        read = self.operations.read(stream, self.coefficients())
        return Maps(read.pre, read.post, read.res)


def _carried(read: Read) -> tuple[Tensor, WriteMaps]:
    return read.hidden, WriteMaps(read.post, read.res, unchanged(read.through))

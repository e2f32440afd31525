"""A residual connection that builds and fails in its first forward pass, to test the suite runner with."""

from __future__ import annotations

from torch import Tensor

from mhc_bench.residual import Carry, ResidualConnection


class Breaking(ResidualConnection):
    """Refuses to be read."""

    def expand(self, hidden: Tensor) -> Tensor:
        return hidden

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        raise RuntimeError("this connection always breaks")

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return stream + update

    def collapse(self, stream: Tensor) -> Tensor:
        return stream


class Exploding(Breaking):
    """Is read without an error, and is not finite."""

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return stream * float("inf"), None

"""Two residual connections that are sound, one of several streams and one of one: what the zoo breaks."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops import reference
from mhc_bench.ops.precision import widened, without_autocast
from mhc_bench.residual import Carry, Maps, ResidualConnection, Start
from mhc_bench.residual.projected import empty
from mhc_bench.residual.slots import copies, unchanged, weighted_sum


class Sound(ResidualConnection):
    """n streams, read by gates that follow the token, mixed and written by parameters: nothing is wrong."""

    def __init__(self, *, width: int, depth: int, index: int, streams: int = 2) -> None:
        super().__init__(width=width, depth=depth, index=index)
        if streams < 1:
            raise UsageError(f"streams {streams}: expected at least 1")
        self.streams = streams
        self.weight, self.bias = empty(streams, width), empty(streams)
        self.mixing, self.post = empty(streams, streams), empty(streams)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return copies(hidden, self.streams)

    def gates(self, stream: Tensor) -> Tensor:
        with without_autocast(stream):
            normed = reference.rms_normalised(widened(stream), 1e-6)
            return torch.sigmoid((normed * self.weight).sum(-1) + self.bias)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        pre, post, res = self.maps(stream)
        return weighted_sum(stream, pre), (post, res)

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        post, res = carry
        with without_autocast(stream):
            written = res @ widened(stream) + post.unsqueeze(-1) * widened(update).unsqueeze(-2)
            result: Tensor = written.to(stream.dtype)
            return result

    def collapse(self, stream: Tensor) -> Tensor:
        return stream.sum(-2)

    def maps(self, stream: Tensor) -> Maps:
        tokens = stream.shape[:-2]
        post = self.post.expand(*tokens, -1).clone(memory_format=torch.contiguous_format)
        res = self.mixing.expand(*tokens, -1, -1).clone(memory_format=torch.contiguous_format)
        return Maps(self.gates(stream), post, res)

    def decayed_parameters(self) -> frozenset[str]:
        return frozenset({"weight"})

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        match name:
            case "weight":
                return (
                    torch.randn(self.streams, self.width, generator=generator, device="cpu") / self.width**0.5
                )
            case "bias":
                return torch.linspace(-1, 1, self.streams, device="cpu")
            case "mixing":
                drawn = torch.randn(self.streams, self.streams, generator=generator, device="cpu")
                return torch.eye(self.streams, device="cpu") + 0.1 * drawn
            case "post":
                return torch.ones(self.streams, device="cpu")
        return super().initial_value(name, generator)


class Plain(ResidualConnection):
    """x + g F(x), g [C] from 1: sound as well, with another stream."""

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.gate = empty(width)
        self.reset_parameters()

    def expand(self, hidden: Tensor) -> Tensor:
        return unchanged(hidden)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return unchanged(stream), ()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        with without_autocast(stream):
            return (widened(stream) + self.gate * widened(update)).to(stream.dtype)

    def collapse(self, stream: Tensor) -> Tensor:
        return unchanged(stream)

    def start(self) -> Start:
        return Start("exact")

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        if name == "gate":
            return torch.ones(self.width, device="cpu")
        return super().initial_value(name, generator)

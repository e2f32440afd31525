"""Residual connections that are broken on purpose, each in one respect."""

from __future__ import annotations

import itertools

import torch
import torch.distributed as dist
from sound_variants import Plain, Sound
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mhc_bench.ops import reference
from mhc_bench.ops.precision import widened
from mhc_bench.residual import Carry, Maps, ResidualConnection, Start
from mhc_bench.residual.projected import empty
from mhc_bench.residual.slots import unchanged, weighted_sum


class TransposedMixing(Sound):
    def maps(self, stream: Tensor) -> Maps:
        pre, post, res = super().maps(stream)
        return Maps(pre, post, res.mT)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        pre, post, res = super().maps(stream)
        return weighted_sum(stream, pre), (post, res)


class OtherGates(Sound):
    """Reads with gates that it does not tell."""

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        pre, post, res = self.maps(stream)
        return weighted_sum(stream, pre / pre.sum(-1, keepdim=True)), (post, res)


class SequenceMean(Sound):
    def gates(self, stream: Tensor) -> Tensor:
        return super().gates(stream - stream.mean(1, keepdim=True))


class FutureWrite(Plain):
    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return super().write(stream, update.roll(-1, dims=1), carry)


class FoldedStreams(Sound):
    """Unfolds the batch in the wrong order: [n B] where the streams lie as [B n]."""

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        rows, time, n, width = stream.shape
        folded = stream.movedim(2, 1).reshape(rows * n, time, width)
        return super().read(folded.reshape(n, rows, time, width).movedim(0, 2).contiguous())


class BatchNorm(Sound):
    def gates(self, stream: Tensor) -> Tensor:
        return super().gates(stream - stream.mean(0, keepdim=True))


class Frozen(Sound):
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.bias.requires_grad_(False)


class Detached(Sound):
    def gates(self, stream: Tensor) -> Tensor:
        return super().gates(stream).detach()


class Cold(Sound):
    """A temperature that saturates every gate."""

    def gates(self, stream: Tensor) -> Tensor:
        gates = super().gates(stream)
        return torch.sigmoid(torch.logit(gates) * 1e6)


class UnusedParameter(Plain):
    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.spare = empty(width)
        self.reset_parameters()

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        return (
            torch.ones(self.width, device="cpu")
            if name == "spare"
            else super().initial_value(name, generator)
        )


class UndeclaredInert(UnusedParameter):
    """A shift that cancels."""

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return super().write(stream, update, carry) + (self.spare - self.spare).to(stream.dtype)


class FalselyInert(Plain):
    def inert_parameters(self) -> frozenset[str]:
        return frozenset({"gate"})


class NotFinite(Sound):
    """A root whose slope is infinite at 0."""

    def gates(self, stream: Tensor) -> Tensor:
        return super().gates(stream) + (self.bias - self.bias.detach()).abs().sqrt()


class StateOnSelf(Sound):
    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        hidden, self.kept = super().read(stream)
        return hidden, self.kept


class GrowingList(Plain):
    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.norms: list[int] = []

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        self.norms.append(stream.ndim)
        return super().read(stream)


class MovingAverage(Plain):
    """A buffer that every pass updates."""

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.register_buffer("mean", torch.zeros(1), persistent=False)

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        self.mean.mul_(0.9)
        return super().read(stream)


class FloatCarry(Plain):
    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return unchanged(stream), (1.0,)


class Bf16Maps(Sound):
    def maps(self, stream: Tensor) -> Maps:
        pre, post, res = super().maps(stream)
        return Maps(pre, post, res.to(stream.dtype))


class Bf16Inside(Sound):
    """fp32 by its dtype, computed in the stream's precision."""

    def gates(self, stream: Tensor) -> Tensor:
        normed = reference.rms_normalised(stream, 1e-6).to(stream.dtype)
        product = (normed * self.weight.to(stream.dtype)).sum(-1)
        return torch.sigmoid(product + self.bias.to(stream.dtype)).to(
            torch.promote_types(stream.dtype, torch.float32)
        )


class UnderAutocast(Sound):
    """A matrix product that autocast rounds."""

    def gates(self, stream: Tensor) -> Tensor:
        normed = reference.rms_normalised(widened(stream), 1e-6)
        return torch.sigmoid(torch.einsum("btnc,nc->btn", normed, self.weight) + self.bias)


class Unseeded(Sound):
    def gates(self, stream: Tensor) -> Tensor:
        gates = super().gates(stream)
        return gates * (1 + 1e-3 * torch.rand_like(gates))


class UnseededStart(Plain):
    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        return 1 + torch.rand(self.width) if name == "gate" else super().initial_value(name, generator)


class DrawsWhenBuilt(Plain):
    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        with torch.no_grad():
            self.gate.copy_(nn.Linear(width, 1).weight[0])


class TakesAnyName(Plain):
    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.ones(self.width, device="cpu")


class ScaledStart(Plain):
    """The sublayers' outputs start at half their size, and the start is declared exact."""

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        return super().initial_value(name, generator) / 2


class FarStart(ScaledStart):
    def start(self) -> Start:
        return Start("approximate", 1e-3)


class UndeclaredStart(Plain):
    def start(self) -> Start:
        return Start("own")


class StreamInPlace(Plain):
    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return stream.add_(self.gate.to(update.dtype) * update)


class UpdateInPlace(Plain):
    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return stream + update.mul_(self.gate.to(update.dtype))


class EmbeddingInPlace(Plain):
    def expand(self, hidden: Tensor) -> Tensor:
        return unchanged(hidden.mul_(2))


class ChangedNorm(Plain):
    """Reaches into the backbone's normalisation (undone by the test)."""

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        stock = LlamaRMSNorm.forward
        LlamaRMSNorm.forward = lambda self, hidden_states: 2 * stock(self, hidden_states)


class NeedsTwoStreams(Sound):
    def collapse(self, stream: Tensor) -> Tensor:
        return stream[..., 0, :] + stream[..., 1, :]


class OneWidth(Plain):
    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return super().write(stream, update.reshape(*update.shape[:-1], 3, 4).flatten(-2), carry)


class WidensDtype(Plain):
    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        return widened(stream) * 1.0, ()


class FoldedShape(Sound):
    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        hidden, carry = super().read(stream)
        return hidden.repeat(self.streams, 1, 1), carry


class ViewOfStream(Sound):
    def collapse(self, stream: Tensor) -> Tensor:
        return stream[..., 0, :]


class OtherWriteRead(Plain):
    def write_read(
        self, stream: Tensor, update: Tensor, carry: Carry, next: ResidualConnection
    ) -> tuple[Tensor, Tensor, Carry]:
        return super().write_read(stream, 1.01 * update, carry, next)


class ScalarParameter(Plain):
    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.gate = nn.Parameter(torch.ones(()))

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.ones((), device="cpu") if self.gate.ndim == 0 else super().initial_value(name, generator)


class DecaysGate(Plain):
    def decayed_parameters(self) -> frozenset[str]:
        return frozenset({"gate"})


class NamesNoParameter(Plain):
    def decayed_parameters(self) -> frozenset[str]:
        return frozenset({"gates"})


class HiddenTensor(Plain):
    """Learns a tensor that is no parameter."""

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.extra = torch.ones(width, requires_grad=True)


class SequenceLength(Plain):
    """Knows how many tokens there are, which differs with a cache."""

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return super().write(stream, update / stream.shape[1], carry)


class OwnPositions(Plain):
    """Counts positions from 0 in every pass."""

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        steps = torch.arange(1, stream.shape[1] + 1, device=stream.device).view(1, -1, 1)
        return super().write(stream, update / steps.to(update.dtype), carry)


class EveryOtherCall(Plain):
    """What it computes depends on how often it was called."""

    calls = itertools.count()

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return super().write(stream, update * (1 + next(self.calls) % 7), carry)


class Numbered(Plain):
    """A number of the process that made it, which no checkpoint holds."""

    made = itertools.count(1)

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.number = next(self.made)

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        return super().write(stream, update * (self.number % 97), carry)


class DataDependent(Sound):
    def gates(self, stream: Tensor) -> Tensor:
        gates = super().gates(stream)
        return gates / 2 if gates.sum().item() > 0 else gates


class OfRank(Plain):
    """Each rank computes something of its own."""

    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        rank = dist.get_rank() if dist.is_initialized() else 0
        return super().write(stream, update * (1 + 0.1 * rank), carry)

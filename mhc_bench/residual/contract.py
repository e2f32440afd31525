"""The residual contract: what sits around each sublayer and decides how the stream is read and written.

Shape legend: B batch, T time, n streams, C width; `...` is whatever a variant's stream has in front.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mhc_bench.errors import UsageError
from mhc_bench.ops.operations import Operations

Carry = tuple[Any, ...]
"""What `write` needs from `read`: a (named) tuple of tensors, open to checkpointing and FSDP."""


class Maps(NamedTuple):
    """The three maps of one sublayer, one of each per token, at least fp32."""

    pre: Tensor
    """[..., n]: the weight of each stream in the sublayer's input (H_pre)."""
    post: Tensor
    """[..., n]: the weight of the sublayer's output in each stream (H_post)."""
    res: Tensor
    """[..., n, n] as res[out, in]: how the streams mix (H_res)."""


class Start(NamedTuple):
    """How the logits of step 0 stand to the plain residual's on the same shared weights."""

    kind: Literal["exact", "approximate", "own"]
    """`exact`: the same bits. `approximate`: within `tolerance`. `own`: a start of its own."""
    tolerance: float = 0.0
    """Largest difference, relative to the largest logit."""


class ResidualConnection(nn.Module, ABC):
    """The connection around sublayer `index` (attention or MLP with its pre-norm), counted from 0.

    A model calls `expand` once after the embedding, `read` and `write` around every sublayer and
    `collapse` once before the final norm. Nothing of a forward pass is kept on `self`: `read` hands to
    `write` through the carry. Subclasses add their options as typed keyword-only arguments and call
    `reset_parameters()` last.

    Args:
        width: C, the backbone's hidden size.
        depth: L, the number of sublayers in the model.
        index: k, this sublayer's number, 0 <= k < L.

    Raises:
        UsageError: when a value is out of range.
    """

    def __init__(self, *, width: int, depth: int, index: int) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"width {width}: expected at least 1")
        if not 0 <= index < depth:
            raise UsageError(f"index {index}: expected 0 to {depth - 1} for a depth of {depth} sublayers")
        self.width, self.depth, self.index = width, depth, index

    @abstractmethod
    def expand(self, hidden: Tensor) -> Tensor:
        """Hidden state [B, T, C] to the stream that flows between sublayers."""

    @abstractmethod
    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        """The sublayer's input [B, T, C], and what `write` will need."""

    @abstractmethod
    def write(self, stream: Tensor, update: Tensor, carry: Carry) -> Tensor:
        """The stream after the sublayer, from the one that `read` saw and the sublayer's output [B, T, C]."""

    @abstractmethod
    def collapse(self, stream: Tensor) -> Tensor:
        """The stream to a hidden state [B, T, C]."""

    def write_read(
        self, stream: Tensor, update: Tensor, carry: Carry, next: ResidualConnection
    ) -> tuple[Tensor, Tensor, Carry]:
        """`write`, then the next connection's `read`; variants may fuse them. (stream, hidden, carry)."""
        written = self.write(stream, update, carry)
        hidden, next_carry = next.read(written)
        return written, hidden, next_carry

    def fuses_with(self, next: ResidualConnection) -> bool:
        """Whether `write_read` is one operation; layers then hand on what it makes, and else the stream."""
        return False

    def use_operations(self, operations: Operations) -> None:
        """Compute with another implementation of the shared operations; nothing to do where none are used."""

    def maps(self, stream: Tensor) -> Maps | None:
        """The maps that `read(stream)` would use; None where the variant has no mixing matrix."""
        return None

    def decayed_parameters(self) -> frozenset[str]:
        """Own parameters that take weight decay. Static maps, biases and gates never do."""
        return frozenset()

    def gate_parameters(self) -> frozenset[str]:
        """Own one-element parameters that scale a map's dynamic part; the probes follow them."""
        return frozenset()

    def inert_parameters(self) -> frozenset[str]:
        """Own parameters whose gradient is zero by construction at this place in the model."""
        return frozenset()

    def vectors_per_token(self) -> Mapping[str, int]:
        """Own matrix -> how many vectors of one token it multiplies, where that is not 1, to count FLOPs.

        0 for the entries of a static map: products with H_res count for no variant.
        """
        return {}

    def start(self) -> Start:
        """The declared start; `mhc-bench check` holds a variant to it."""
        return Start("own")

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        """The start value of own parameter `name`: fp32, on the CPU, from `generator` alone.

        Raises:
            LookupError: for a parameter that the connection does not know.
        """
        raise LookupError(f"{type(self).__name__} gives no initial value for {name!r}")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fill own parameters from torch's seed and the index, without drawing from its generator.

        Those on the meta device stay as they are, and no value is made for them.
        """
        for position, (name, parameter) in enumerate(self.named_parameters()):
            if parameter.is_meta:  # a model of any size can be counted
                continue
            seed = (torch.initial_seed() * 1_000_003 + self.index * 101 + position) % 2**63
            parameter.copy_(self.initial_value(name, torch.Generator().manual_seed(seed)))

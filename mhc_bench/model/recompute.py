"""Block recompute: residual intermediates are dropped and made again without attention or MLP.

The mHC paper's recomputation (arXiv 2512.24880, Eq. 20). A block of decoder layers keeps its first stream and
the output of each sublayer's module; when the backward pass first asks for something else of the residual
path, the path runs once more over the kept outputs. What attention and MLP themselves keep stays, except
their input: the pre-norm is run again as well. Shapes: `B T C`.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from mhc_bench.model.families import Sublayer, decoder_layers
from mhc_bench.model.layers import Handed, pre_norm, residual_path, rest_of_sublayer
from mhc_bench.residual import ResidualConnection


def recompute_layers(model: PreTrainedModel) -> None:
    """Make each decoder layer keep only its input and compute itself again in the backward pass."""
    with warnings.catch_warnings():
        # transformers 5.23 renamed it; versions before know this name alone, which stays until 6
        warnings.filterwarnings("ignore", "`gradient_checkpointing_enable` is deprecated", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def recompute_blocks(model: PreTrainedModel, sublayers: float) -> None:
    """Make the residual path of a grafted model drop what it saves, in blocks of `sublayers` (whole layers).

    Acts where gradients are recorded, and nowhere else. A connection must compute the same when it is run
    again, so it may not draw random numbers.
    """
    blocks = Blocks(max(1, round(sublayers / 2)))
    for _, layer in decoder_layers(model):
        layer.blocks = blocks  # type: ignore[assignment]  # no module: it holds nothing to save


def best_block(streams: int, sublayers: int) -> float:
    """The number of sublayers sqrt(n L / (n + 2)) that keeps least, by the paper's Eq. 20."""
    return math.sqrt(streams * sublayers / (streams + 2))


class Blocks:
    """The blocks of a model's forward passes, one at a time."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self._open: Block | None = None

    def run(self, layer: Any, arriving: Tensor | Handed, context: Mapping[str, Any]) -> Tensor | Handed:
        """The result of a decoder layer, as part of its block; a block begins and ends with a stream."""
        number = layer.attention_residual.index // 2
        if not isinstance(arriving, Handed) and (number % self.layers == 0 or self._open is None):
            self._open = Block(arriving)
        block, ends = self._open, (number + 1) % self.layers == 0
        assert block is not None
        if ends or layer.is_last:
            self._open = None
        return block.run(layer, arriving, context, () if ends else layer.following)


class Dropped(ABC):
    """A part of the graph whose saved tensors are dropped, and made again together when one is asked for."""

    def __init__(self) -> None:
        self._places = itertools.count()
        self._again: dict[int, Tensor] = {}

    def dropping(self) -> saved_tensors_hooks:
        """Inside this context autograd saves places instead of tensors."""
        return saved_tensors_hooks(lambda _: next(self._places), self._take)

    @abstractmethod
    def rerun(self) -> None:
        """Do once more what was done inside `dropping()`, in the same order."""

    def make_again(self) -> None:
        """Run again, keeping this time what autograd saves."""
        places = itertools.count()

        def keep(tensor: Tensor) -> None:
            self._again[next(places)] = tensor.detach()

        with torch.enable_grad(), saved_tensors_hooks(keep, _never):
            self.rerun()

    def _take(self, place: int) -> Tensor:
        if place not in self._again:
            self.make_again()
        return self._again.pop(place)


class Block(Dropped):
    """The residual path through consecutive decoder layers, from their first stream."""

    def __init__(self, stream: Tensor) -> None:
        super().__init__()
        self.start = leaf(stream)
        self.layers: list[tuple[nn.Module, tuple[ResidualConnection, ...]]] = []
        """Each with the connection whose read it makes."""
        self.updates: list[Tensor] = []
        """Of each sublayer so far, [B, T, C]."""
        self.hidden: dict[int, Tensor] = {}
        """H_pre x of sublayers, [B, T, C], between their being made again and their use."""

    def run(
        self,
        layer: nn.Module,
        arriving: Tensor | Handed,
        context: Mapping[str, Any],
        following: tuple[ResidualConnection, ...],
    ) -> Tensor | Handed:
        """The layer's result."""
        self.layers.append((layer, following))
        with self.dropping():
            apply = functools.partial(self._apply, layer, context)
            return residual_path(layer, arriving, apply, following)

    def _apply(
        self, layer: nn.Module, context: Mapping[str, Any], sublayer: Sublayer, hidden: Tensor
    ) -> Tensor:
        update = SublayerInput(self, len(self.updates), layer, sublayer).apply(hidden, context)
        self.updates.append(leaf(update))
        return update

    def rerun(self) -> None:
        updates, hidden_states = iter(self.updates), []

        def replay(sublayer: Sublayer, hidden: Tensor) -> Tensor:
            hidden_states.append(leaf(hidden))
            return next(updates)

        flowing: Tensor | Handed = self.start
        for layer, following in self.layers:
            flowing = residual_path(layer, flowing, replay, following)
        self.hidden = dict(enumerate(hidden_states))

    def take_hidden(self, number: int) -> Tensor:
        """H_pre x of a sublayer, made again."""
        if number not in self.hidden:
            self.make_again()
        return self.hidden.pop(number)


class View(NamedTuple):
    """Where in a sublayer's input a saved tensor lies."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class SublayerInput(Dropped):
    """What attention or MLP receives: the pre-norm of H_pre x. Only this is dropped of the sublayer.

    It is made again apart from its block, in the backward pass of its own layer: there FSDP2 has the norm's
    weight at hand.
    """

    def __init__(self, block: Block, number: int, layer: nn.Module, sublayer: Sublayer) -> None:
        super().__init__()
        self.block, self.number, self.layer, self.sublayer = block, number, layer, sublayer
        self._views = 0
        self._input: Tensor | None = None

    def apply(self, hidden: Tensor, context: Mapping[str, Any]) -> Tensor:
        """The sublayer's output."""
        with self.dropping():
            normed = pre_norm(self.layer, self.sublayer, hidden)
        memory, version, dtype = normed.untyped_storage().data_ptr(), normed._version, normed.dtype

        def keep(tensor: Tensor) -> Tensor | View:
            # `normed` outlives this, so no other tensor lies in its memory; the hook itself must not hold it
            same = tensor.untyped_storage().data_ptr() == memory and tensor.dtype == dtype
            if not same or tensor._version != version:
                return tensor.detach()
            self._views += 1
            return View(tensor.size(), tensor.stride(), int(tensor.storage_offset()))

        with saved_tensors_hooks(keep, self._look):
            return rest_of_sublayer(self.layer, self.sublayer, normed, context)

    def rerun(self) -> None:
        hidden = self.block.take_hidden(self.number)
        self._input = pre_norm(self.layer, self.sublayer, hidden).detach()

    def _look(self, kept: Tensor | View) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if self._input is None:
            self.make_again()
        assert self._input is not None
        view = self._input.as_strided(*kept)
        self._views -= 1
        if not self._views:
            self._input = None
        return view


def leaf(tensor: Tensor) -> Tensor:
    """The same values at the start of a graph of their own."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _never(_: object) -> NoReturn:
    raise AssertionError("the graph of a second run has no backward pass")

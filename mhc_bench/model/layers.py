"""Decoder layers whose two additions are a residual connection's `read` and `write`. Shapes: `B T n C`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from mhc_bench.errors import UsageError
from mhc_bench.model.families import Family, Sublayer, decoder_layers, family_of_layer
from mhc_bench.model.linking import link
from mhc_bench.residual import Carry, ResidualConnection

if TYPE_CHECKING:
    from mhc_bench.model.recompute import Blocks

RESIDUAL_NAMES = ("attention_residual", "mlp_residual")
"""The submodules of a grafted layer; no parameter of a stock model has one of these names in it."""


class Handed(NamedTuple):
    """What a layer hands to the next one, whose first read it makes together with its own last write.

    A tuple, the stream first: transformers takes the first element of what a layer returns for its hidden
    state.
    """

    stream: Tensor
    hidden: Tensor
    """[B, T, C], the next layer's H_pre x."""
    carry: Carry


class GraftedLayer(nn.Module):
    """What a grafted decoder layer has beyond its stock class.

    Between layers flows the variant's stream, or a `Handed`; the first layer expands it from [B, T, C] and
    the last one collapses it, so the model around the layers is untouched.
    """

    stock_class: type[nn.Module]
    family: Family
    attention_residual: ResidualConnection
    mlp_residual: ResidualConnection
    is_first: bool
    is_last: bool
    following: tuple[ResidualConnection, ...] = ()
    """The next layer's first connection, no submodule here; set by `link`, empty in the last layer."""

    blocks: Blocks | None = None
    """Drops the residual path's saved tensors (`mhc_bench.model.recompute`); None keeps them."""

    def forward(self, hidden_states: Any, **context: Any) -> Any:
        """One decoder layer. `context` is what the stock model hands to attention (mask, positions, cache).

        `hidden_states` and the result are the stream or a `Handed`, except [B, T, C] into the first and out
        of the last layer.
        """
        if self.blocks is not None and torch.is_grad_enabled():
            return self.blocks.run(self, hidden_states, context)
        apply = functools.partial(apply_sublayer, self, context)
        return residual_path(self, hidden_states, apply, () if keeps_input(self) else self.following)


def keeps_input(layer: Any) -> bool:
    """Whether the layer keeps its input alone and runs again in the backward pass: then a stream is least."""
    return bool(layer.training and layer.gradient_checkpointing)


def residual_path(
    layer: Any,
    arriving: Tensor | Handed,
    apply: Callable[[Sublayer, Tensor], Tensor],
    following: tuple[ResidualConnection, ...],
) -> Tensor | Handed:
    """A layer's residual connections around `apply(sublayer, hidden [B, T, C]) -> update [B, T, C]`.

    The last write goes with the read of the connection `following`, or by itself where there is none.
    """
    mlp = layer.mlp_residual
    stream, hidden, carry = arriving if isinstance(arriving, Handed) else first_read(layer, arriving)
    update = apply(layer.family.attention, hidden)
    stream, hidden, carry = layer.attention_residual.write_read(stream, update, carry, mlp)
    update = apply(layer.family.mlp, hidden)
    if following:
        return Handed(*mlp.write_read(stream, update, carry, following[0]))
    written: Tensor = mlp.write(stream, update, carry)
    return mlp.collapse(written) if layer.is_last else written


def first_read(layer: Any, stream: Tensor) -> Handed:
    """What the layer's attention sees of a stream, or of the embedding [B, T, C] in the first layer."""
    attention = layer.attention_residual
    if layer.is_first:
        stream = attention.expand(stream)
    return Handed(stream, *attention.read(stream))


def apply_sublayer(layer: Any, context: Mapping[str, Any], sublayer: Sublayer, hidden: Tensor) -> Tensor:
    """F(hidden [B, T, C]) -> update [B, T, C]: a sublayer's module with its family's norms around it."""
    return rest_of_sublayer(layer, sublayer, pre_norm(layer, sublayer, hidden), context)


def pre_norm(layer: nn.Module, sublayer: Sublayer, hidden: Tensor) -> Tensor:
    """What the sublayer's module gets."""
    normed: Tensor = hidden if sublayer.before is None else getattr(layer, sublayer.before)(hidden)
    return normed


def rest_of_sublayer(layer: Any, sublayer: Sublayer, normed: Tensor, context: Mapping[str, Any]) -> Tensor:
    """The sublayer's module and the norm after it; only attention gets the `context`."""
    own = context if sublayer is layer.family.attention else {}
    output = getattr(layer, sublayer.module)(normed, **own)
    # attention returns its weights beside the output, some experts their router's scores
    update: Tensor = output[0] if isinstance(output, tuple) else output
    return getattr(layer, sublayer.after)(update) if sublayer.after is not None else update


@functools.cache
def grafted_layer_class(stock: type[nn.Module], family: Family) -> type[nn.Module]:
    """The grafted subclass of a stock decoder layer.

    A subclass (and not a wrapper) keeps parameter names and what transformers finds by class: output
    recording, gradient checkpointing, the list of modules not to split. The last goes by class name, hence
    the stock's name.
    """
    body = {
        "__module__": __name__,
        "__qualname__": f"Grafted{stock.__name__}",
        "__doc__": f"{stock.__name__} with a residual connection around each sublayer.",
        "forward": GraftedLayer.forward,
        "stock_class": stock,
        "family": family,
        "blocks": None,
        "following": (),
    }
    return type(stock.__name__, (stock,), body)


def attach(model: PreTrainedModel, kind: type[ResidualConnection], options: Mapping[str, Any]) -> None:
    """Turn the stock decoder layers of `model` into grafted ones, in place, or none of them.

    Raises:
        UsageError: unsupported decoder, one that has been grafted or sharded already, or a bad option.
    """
    layers: list[Any] = [layer for _, layer in decoder_layers(model)]
    if any(is_changed(layer) for layer in layers):
        raise UsageError(
            "cannot graft here: the model is grafted or sharded already; start from a stock model"
        )
    connections = [
        connections_of_layer(model, kind, index, len(layers), options) for index in range(len(layers))
    ]
    for index, (layer, (attention, mlp)) in enumerate(zip(layers, connections, strict=True)):
        family = family_of_layer(layer)
        assert family is not None
        layer.__class__ = grafted_layer_class(type(layer), family)  # type: ignore[arg-type]  # a class is hashable
        layer.attention_residual, layer.mlp_residual = attention, mlp
        layer.is_first, layer.is_last = index == 0, index == len(layers) - 1
    cast("nn.Module", model.model).register_forward_pre_hook(link)


def connections_of_layer(
    model: PreTrainedModel,
    kind: type[ResidualConnection],
    layer: int,
    layers: int,
    options: Mapping[str, Any],
) -> tuple[ResidualConnection, ResidualConnection]:
    """New connections of layer number `layer` for attention and MLP, on the model's device."""
    width: int = model.config.hidden_size
    with next(model.parameters()).device:
        attention, mlp = (
            kind(width=width, depth=2 * layers, index=2 * layer + half, **options) for half in (0, 1)
        )
    return attention, mlp


def is_changed(layer: nn.Module) -> bool:
    """Whether the layer is no longer of its stock class."""
    return "stock_class" in vars(type(layer)) or FSDPModule in type(layer).__bases__


def residual_connections(model: nn.Module) -> dict[str, ResidualConnection]:
    """Qualified name -> connection, in the order of the sublayers; empty for a stock model."""
    found = [(name, each) for name, each in model.named_modules() if isinstance(each, ResidualConnection)]
    return dict(sorted(found, key=lambda pair: pair[1].index))


def parameter_owners(model: nn.Module) -> dict[str, tuple[ResidualConnection, str]]:
    """Qualified parameter name -> (connection, own name) of the residual connections' parameters."""
    return {
        f"{prefix}.{name}": (connection, name)
        for prefix, connection in residual_connections(model).items()
        for name, _ in connection.named_parameters()
    }

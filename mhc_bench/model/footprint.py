"""What a decoder's activations take: each layer is run forward and backward on the meta device and its
tensors are counted, so that the figures are those of the code that trains, in seconds and without memory.

Two things that no meta tensor can do are put in place: a fused attention kernel, which keeps queries, keys,
values, output and one number per row and head, and routed experts, which all get the same number of tokens.
"""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import PreTrainedModel

from mhc_bench.model.families import decoder_layers
from mhc_bench.model.layers import residual_connections


@dataclass(frozen=True)
class LayerFootprint:
    """Bytes of one decoder layer's tensors on one device."""

    entering: int
    """The stream that flows in: all that layer checkpointing keeps."""
    kept: int
    """From the forward to the backward pass, its output included."""
    backward: int
    """Most at one time in the backward pass beyond `kept`: gradients of activations and parameters."""


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still alive; and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def watch(self, tensor: Tensor) -> None:
        """Take a storage that was there before as known, at no bytes."""
        self._seen[tensor.untyped_storage()._cdata] = 0

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)


class _Attention(torch.autograd.Function):
    """The memory of a fused kernel: inputs, output and a log-sum per row and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors[:3])


class FusedAttention(TorchFunctionMode):
    """`scaled_dot_product_attention` with the memory of a fused kernel, whatever the device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


def balanced_experts(self: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The routed experts' forward pass as one expert that gets every token as often as experts are chosen."""
    tokens, active = chosen.shape
    index = torch.arange(tokens * active, device=hidden.device) // active
    gate, up = F.linear(hidden[index], self.gate_up_proj[0]).chunk(2, dim=-1)
    result = F.linear(self.act_fn(gate) * up, self.down_proj[0]) * weights.reshape(-1, 1)
    return torch.zeros_like(hidden).index_add_(0, index, result.to(hidden.dtype))


def balance_experts(model: PreTrainedModel) -> None:
    """Give all routed experts of `model` the balanced forward pass, in place."""
    for module in model.modules():
        if getattr(module, "num_experts", 0) and hasattr(module, "gate_up_proj"):
            module.forward = types.MethodType(balanced_experts, module)


def layer_footprints(
    model: PreTrainedModel, rows: int, length: int, precision: torch.dtype
) -> list[LayerFootprint]:
    """The footprint of each decoder layer for `rows` sequences of `length` tokens.

    Args:
        model: on the meta device; changed in place (its dtype and experts), so not to be trained.
        rows: sequences of one forward pass on one device.
        length: tokens of a sequence.
        precision: of everything but the residual connections, which stay fp32.
    """
    model.to(precision)  # type: ignore[arg-type]
    for connection in residual_connections(model).values():
        connection.float()
    balance_experts(model)
    decoder: Any = model.model
    hidden = torch.empty(rows, length, model.config.hidden_size, dtype=precision, device="meta")
    positions = torch.arange(length, device="meta").unsqueeze(0)
    embedded = hidden
    found: list[LayerFootprint] = []
    for place, (_, layer) in enumerate(decoder_layers(model)):
        angles = _angles(decoder, embedded, positions, place)
        context = {"position_embeddings": angles, "position_ids": positions, "attention_mask": None}
        footprint, hidden = _layer_footprint(layer, hidden, context)
        found.append(footprint)
    return found


def _angles(decoder: Any, hidden: Tensor, positions: Tensor, place: int) -> Any:
    """Rotary cosines and sines of layer `place`; some families have one pair for each kind of attention."""
    rotary = decoder.rotary_emb
    if "layer_type" in inspect.signature(rotary.forward).parameters:
        return rotary(hidden, positions, decoder.config.layer_types[place])
    return rotary(hidden, positions)


def _layer_footprint(
    layer: torch.nn.Module, hidden: Tensor, context: dict[str, Any]
) -> tuple[LayerFootprint, Tensor]:
    """The footprint of one layer, and a stream like the one that it hands on."""
    entering = hidden.detach().requires_grad_()
    with LiveBytes() as live, FusedAttention():
        for tensor in (entering, *layer.parameters(), *layer.buffers(), *context["position_embeddings"]):
            live.watch(tensor)
        output = layer(entering, **context)
        kept = live.now
        gradient = torch.empty_like(output)
        output.backward(gradient)
        layer.zero_grad(set_to_none=True)
    footprint = LayerFootprint(
        entering=hidden.untyped_storage().nbytes(),
        kept=kept,
        backward=live.most - kept,
    )
    return footprint, output.detach()

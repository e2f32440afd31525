"""Parameters and floating-point operations of a model; works on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from mhc_bench.model.families import decoder_layers
from mhc_bench.model.layers import parameter_owners


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Counts as the mHC paper makes them (arXiv 2512.24880, table 5); tied matrices count once.

    Returns:
        total: all parameters. active: those that one token meets: routed experts by the share that is chosen,
        and without the input embedding, which is looked up, unless it is also the output head. vocabulary:
        input embedding and output head. residual: of the residual connections, also part of the other two.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    owners = parameter_owners(model)
    total = sum(sizes.values())
    looked_up = 0 if is_tied(model) else input_embedding(model).numel()
    head = output_head(model).numel()
    return {
        "total": total,
        "active": total - looked_up - sum(idle for _, idle in idle_expert_parameters(model)),
        "vocabulary": looked_up + head,
        "residual": sum(sizes[name] for name in owners),
    }


FLOPS_RULE = 2
"""How `flops_per_token` counts. Rule 1 took each matrix once per token, HC's too, which meet every stream."""


def flops_per_token(model: PreTrainedModel, sequence_length: int, rule: int = FLOPS_RULE) -> int:
    """Floating-point operations per token of one training step, in matrix products forward and backward.

    6 x active matrix parameters (output head, chosen experts and the matrices of residual connections
    included) x the vectors of a token that each multiplies (one, but where a connection's
    `vectors_per_token` says otherwise), and for each layer 6 x heads x (key + value head size) x the mean
    number of positions that a token attends to: (T + 1) / 2 under a causal mask of T, less in a sliding
    window. Norms, softmax and the mixing of streams, which no parameter counts, are left out.
    """
    idle = dict(idle_expert_parameters(model))
    embedding = None if is_tied(model) else input_embedding(model)
    vectors = _vectors_per_token(model) if rule == FLOPS_RULE else {}
    active = sum(
        (parameter.numel() - idle.get(name, 0)) * vectors.get(name, 1)
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and parameter is not embedding
    )
    return 6 * active + round(sum(attention_flops(model, sequence_length)))


def _vectors_per_token(model: PreTrainedModel) -> dict[str, int]:
    """Qualified name -> how many vectors of a token a residual connection's matrix multiplies."""
    return {
        name: connection.vectors_per_token().get(own, 1)
        for name, (connection, own) in parameter_owners(model).items()
    }


def attention_flops(model: PreTrainedModel, sequence_length: int) -> Iterator[float]:
    """Per layer, the operations of scores and weighted values per token, forward and backward."""
    config = model.config
    for _, layer in decoder_layers(model):
        attention: Any = layer.self_attn
        key_size = getattr(attention, "qk_head_dim", None) or attention.head_dim
        value_size = getattr(attention, "v_head_dim", None) or attention.head_dim
        window = getattr(attention, "sliding_window", None)
        yield 6 * config.num_attention_heads * (key_size + value_size) * mean_context(sequence_length, window)


def mean_context(length: int, window: int | None) -> float:
    """Mean over positions 1..length of the number of positions that a causal token sees, itself included."""
    reach = min(length, window or length)
    return (reach * (reach + 1) / 2 + (length - reach) * reach) / length


def idle_expert_parameters(model: PreTrainedModel) -> Iterator[tuple[str, int]]:
    """Qualified name -> parameters of routed experts that one token does not meet."""
    for prefix, module in model.named_modules():
        experts: Any = getattr(module, "num_experts", 0)
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.ndim == 3 and parameter.shape[0] == experts:
                yield name, parameter.numel() // experts * (experts - model.config.num_experts_per_tok)


def input_embedding(model: PreTrainedModel) -> Tensor:
    """The input embedding, [V, C]."""
    found: Any = model.get_input_embeddings()
    weight: Tensor = found.weight
    return weight


def output_head(model: PreTrainedModel) -> Tensor:
    """The matrix of the output head, [V, C]."""
    found: Any = model.get_output_embeddings()
    weight: Tensor = found.weight
    return weight


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head is the input embedding."""
    return output_head(model) is input_embedding(model)

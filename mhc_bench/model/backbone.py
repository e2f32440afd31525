"""A stock causal language model of transformers, from a family and that family's configuration fields."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters

from mhc_bench.errors import UsageError, choose
from mhc_bench.limits import LARGEST_SCALE, LARGEST_WIDTH, MOST_LAYERS
from mhc_bench.model.families import Family, family_named

FROM_DATA = frozenset(
    {"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings"}
)
"""Fields that follow from the data and the sequence length: a model's configuration may not set them."""


def build_backbone(
    family: str,
    options: Mapping[str, Any],
    *,
    vocabulary: int,
    bos_id: int | None,
    eos_id: int | None,
    pad_id: int | None,
    max_positions: int,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """A stock model in fp32; on `device="meta"` without memory, to be filled by `materialise`.

    Attention is sdpa (on a CPU as fast as eager at these sizes, and leaner at long sequences), eager where a
    family's score soft-capping needs it; experts run by transformers' readable loop. Both are deterministic
    on a CPU.

    Args:
        family: one of `supported_families()`.
        options: fields of the family's transformers configuration. `head_dim` defaults to width / heads.
        vocabulary: V, rows of the embedding.
        bos_id: token at the beginning, if any.
        eos_id: token at the end, if any.
        pad_id: for generation only: as the embedding's `padding_idx` it would silently stop that row from
            learning, which matters where padding is also the end token.
        max_positions: the longest sequence.
        device: where to build.

    Raises:
        UsageError: an unknown family or field, or values that do not fit together.
    """
    found = family_named(family)
    config = backbone_config(
        found,
        options,
        vocab_size=vocabulary,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        max_position_embeddings=max_positions,
    )
    model = _built(found, config, device)
    model.generation_config.pad_token_id = pad_id
    return model


def _built(family: Family, config: PreTrainedConfig, device: torch.device | str) -> PreTrainedModel:
    try:
        with torch.device(device):
            model: PreTrainedModel = family.model_class._from_config(
                config,
                attn_implementation=family.attention_kernel,
                experts_implementation="eager",
                dtype=torch.float32,
            )
    except (AttributeError, KeyError, TypeError) as error:  # of values that only the layers look at
        raise UsageError(
            f"model family {family.name}: no model has these backbone values "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
    return model


def backbone_config(family: Family, options: Mapping[str, Any], **from_data: int | None) -> PreTrainedConfig:
    """The checked transformers configuration.

    Raises:
        UsageError: as `build_backbone`.
    """
    kind: Any = family.config_class
    for name in options:
        if name in FROM_DATA:
            raise UsageError(
                f"backbone field {name!r}: it follows from the data and the sequence length; leave it out"
            )
        choose(f"backbone field of {family.name}", name, own_fields(kind))
    values = copy.deepcopy(dict(options))  # transformers fills up `rope_parameters` in place
    if "head_dim" in own_fields(kind) and values.get("head_dim") is None:
        width, heads = (_given(kind, values, name) for name in ("hidden_size", "num_attention_heads"))
        values["head_dim"] = _quotient("hidden_size", width, "num_attention_heads", heads)
    check_shape(kind, values)
    try:
        config: PreTrainedConfig = kind(**values, **from_data, pad_token_id=None)
        return config
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"model family {family.name}: {' '.join(str(error).split())}") from error


def own_fields(kind: type[PreTrainedConfig]) -> set[str]:
    """The fields that a family's configuration class itself declares."""
    shared = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    return {field.name for field in dataclasses.fields(kind)} - shared - FROM_DATA


def check_shape(kind: type[PreTrainedConfig], values: Mapping[str, Any]) -> None:
    """Refuse sizes that do not divide, before transformers meets them somewhere inside a forward pass."""
    for name, value in values.items():
        _check_size(name, value)
    _check_rotations(values.get("rope_parameters"))
    for name in _SIZES:
        _value(kind, values, name)
    for name in {"hidden_act", "hidden_activation"} & values.keys():
        choose(name, str(values[name]), ACT2FN)
    for name in {"attention_dropout", "rms_norm_eps"} & values.keys():
        value, most = values[name], 1.0 if name == "rms_norm_eps" else 0.99
        if isinstance(value, (int, float)) and not 0 <= value <= most:
            raise UsageError(f"{name} {value!r}: expected a number from 0 to {most}")
    heads = _given(kind, values, "num_attention_heads")
    if not {"head_dim", "qk_rope_head_dim"} & own_fields(kind):
        _quotient("hidden_size", _given(kind, values, "hidden_size"), "num_attention_heads", heads)
    key_heads = _value(kind, values, "num_key_value_heads")
    if key_heads is not None:
        _quotient("num_attention_heads", heads, "num_key_value_heads", key_heads)
    for name in ("head_dim", "qk_rope_head_dim"):
        if name in own_fields(kind) and (size := _value(kind, values, name)) is not None:
            _quotient(name, size, "the rotary halves", 2)
    if "n_group" in own_fields(kind):
        check_experts(*(_given(kind, values, name) for name in _EXPERTS))


_SIZES = (
    *("num_hidden_layers", "intermediate_size", "moe_intermediate_size"),
    *("kv_lora_rank", "q_lora_rank", "v_head_dim"),
)
_EXPERTS = ("n_routed_experts", "n_group", "topk_group", "num_experts_per_tok")


def check_experts(experts: int, groups: int, chosen_groups: int, active: int) -> None:
    """Refuse a router that cannot choose: groups go by their two best experts, then `active` are taken."""
    if _quotient("n_routed_experts", experts, "n_group", groups) < 2:
        raise UsageError(
            f"n_group {groups}: expected at most {experts // 2}, two of {experts} experts in each group"
        )
    if not 1 <= chosen_groups <= groups:
        raise UsageError(f"topk_group {chosen_groups}: expected 1 to n_group {groups}")
    if not 1 <= active <= (most := experts // groups * chosen_groups):
        raise UsageError(
            f"num_experts_per_tok {active}: expected 1 to {most}, the experts in the chosen groups"
        )


def _check_size(name: str, value: Any) -> None:
    """Refuse numbers that no field has: such a model could not even be counted."""
    whole = MOST_LAYERS if name == "num_hidden_layers" else LARGEST_WIDTH
    most = whole if isinstance(value, int) else LARGEST_SCALE
    if isinstance(value, (int, float)) and not 0 <= value <= most:
        raise UsageError(f"{name} {value!r}: expected a number from 0 to {most}")


def _check_rotations(parameters: Any) -> None:
    """Refuse unknown keys, which transformers leaves alone; a mapping for each type of layer has its own."""
    if not isinstance(parameters, Mapping):
        return
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            _check_rotations(value)
        else:
            choose("key of rope_parameters", str(key), RopeParameters.__annotations__)
    known = {"default", *ROPE_INIT_FUNCTIONS}
    choose("rope_type of rope_parameters", str(parameters.get("rope_type", "default")), known)
    theta = parameters.get("rope_theta", 1.0)
    if isinstance(theta, bool) or not isinstance(theta, (int, float)) or theta <= 0:
        raise UsageError(f"rope_parameters: rope_theta {theta!r}: expected a positive number")


def _value(kind: type[PreTrainedConfig], values: Mapping[str, Any], name: str) -> Any:
    """A field's given value or its default; a whole number, for a line that names the field."""
    value = values[name] if name in values else getattr(kind, name, None)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UsageError(f"{name} {value!r}: expected a whole number from 1")
    return value


def _given(kind: type[PreTrainedConfig], values: Mapping[str, Any], name: str) -> int:
    """A value that cannot be null."""
    value = _value(kind, values, name)
    if value is None:
        raise UsageError(f"{name} is null: expected a whole number from 1")
    return int(value)


def _quotient(name: str, value: int, divisor_name: str, divisor: int) -> int:
    if value % divisor:
        near = max(divisor, round(value / divisor) * divisor)
        raise UsageError(
            f"{name} {value} is not divisible by {divisor_name} {divisor}: the nearest is {near}"
        )
    return value // divisor

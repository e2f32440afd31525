"""The supported decoders of `transformers`: how each composes its sublayers, and what is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import transformers
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig, PreTrainedModel

from mhc_bench.errors import UsageError, choose


@dataclass(frozen=True)
class Sublayer:
    """One sublayer F of a decoder layer: the names of its module and of the norms around it."""

    module: str
    before: str | None
    after: str | None


ATTENTION = Sublayer("self_attn", "input_layernorm", None)
MLP = Sublayer("mlp", "post_attention_layernorm", None)
ATTENTION_POST_NORM = Sublayer("self_attn", None, "post_attention_layernorm")
MLP_POST_NORM = Sublayer("mlp", None, "post_feedforward_layernorm")
ATTENTION_BOTH = Sublayer("self_attn", "input_layernorm", "post_attention_layernorm")
MLP_BOTH = Sublayer("mlp", "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Family:
    """A decoder family.

    `package` and `prefix` name its classes: `transformers.models.<package>` and `<prefix>DecoderLayer`.
    `norm_start` is the start value of its norms' weights: 0 where the norm multiplies by 1 + weight.
    `attention_kernel` is `sdpa` unless the family needs scores that sdpa does not expose (soft-capping).
    """

    name: str
    package: str
    prefix: str
    attention: Sublayer = ATTENTION
    mlp: Sublayer = MLP
    norm_start: float = 1.0
    attention_kernel: Literal["sdpa", "eager"] = "sdpa"
    config_name: str = ""

    def __post_init__(self) -> None:
        if not self.config_name:
            object.__setattr__(self, "config_name", f"{self.prefix}Config")

    @property
    def layer_class(self) -> str:
        """The dotted name of the family's decoder layer."""
        return f"transformers.models.{self.package}.modeling_{self.package}.{self.prefix}DecoderLayer"

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        """The family's configuration class, imported when it is asked for."""
        found: type[PreTrainedConfig] = getattr(transformers, self.config_name)
        return found

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The family's causal language model, imported when it is asked for."""
        found: type[PreTrainedModel] = getattr(transformers, f"{self.prefix}ForCausalLM")
        return found


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("llama", "llama", "Llama"),
        Family("qwen2", "qwen2", "Qwen2"),
        Family("qwen3", "qwen3", "Qwen3"),
        Family("mistral", "mistral", "Mistral"),
        Family("gemma", "gemma", "Gemma", norm_start=0.0),
        Family("gemma2", "gemma2", "Gemma2", ATTENTION_BOTH, MLP_BOTH, 0.0, "eager"),
        Family("gemma3", "gemma3", "Gemma3", ATTENTION_BOTH, MLP_BOTH, 0.0, config_name="Gemma3TextConfig"),
        Family("olmo", "olmo", "Olmo"),
        Family("olmo2", "olmo2", "Olmo2", ATTENTION_POST_NORM, MLP_POST_NORM),
        Family("olmo3", "olmo3", "Olmo3", ATTENTION_POST_NORM, MLP_POST_NORM),
        Family("deepseek_v3", "deepseek_v3", "DeepseekV3"),
    )
}

_BY_LAYER_CLASS = {family.layer_class: family for family in FAMILIES.values()}


def supported_families() -> tuple[str, ...]:
    """The names of the decoder families that a residual connection can be grafted onto."""
    return tuple(FAMILIES)


def family_named(name: str) -> Family:
    """The family of that name.

    Raises:
        UsageError: naming the nearest family and all of them.
    """
    return FAMILIES[choose("model family", name, FAMILIES)]


def family_of_layer(layer: nn.Module) -> Family | None:
    """The family of a decoder layer, whether stock, grafted or sharded; None for any other.

    The class must match exactly: somebody's own subclass of a stock layer may compute something else.
    """
    kind = type(layer)
    if FSDPModule in kind.__bases__:
        kind = kind.__bases__[1]
    kind = kind.__dict__.get("stock_class", kind)
    return _BY_LAYER_CLASS.get(f"{kind.__module__}.{kind.__qualname__}")


def decoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The decoder layers of a causal language model as (qualified name, layer), in order.

    Raises:
        UsageError: when the model is not built from a supported decoder; the message lists those that are.
    """
    layers: Any = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList) or not layers:
        raise UsageError(unsupported(type(model).__name__))
    for layer in layers:
        if family_of_layer(layer) is None:
            raise UsageError(unsupported(type(layer).__name__))
    return [(f"model.layers.{index}", layer) for index, layer in enumerate(layers)]


def family_of(model: nn.Module) -> Family:
    """The family of a causal language model.

    Raises:
        UsageError: as `decoder_layers`.
    """
    family = family_of_layer(decoder_layers(model)[0][1])
    assert family is not None
    return family


def unsupported(name: str) -> str:
    """The one line that refuses a decoder."""
    return f"cannot graft onto {name}: expected a causal language model of {', '.join(FAMILIES)}"

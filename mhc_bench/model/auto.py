"""Grafted model and configuration classes by name, for `transformers` to build a saved model from.

`GraftedLlamaForCausalLM` and the like are made when they are asked for: the shim inside a saved model imports
them from here, so an export carries no model code of its own.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from mhc_bench.model.checkpoint import describe_checkpoint
from mhc_bench.model.families import FAMILIES, Family
from mhc_bench.model.layers import RESIDUAL_NAMES, attach
from mhc_bench.residual import resolve

PREFIX = "Grafted"


class GraftedModel(PreTrainedModel):
    """What a grafted causal language model has beyond its stock class: built and saved whole."""

    graft_family: Family
    graft_variant: str
    graft_options: dict[str, Any]

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        section = config.mhc_bench
        self.graft_variant, self.graft_options = section["variant"], dict(section["options"])
        attach(self, resolve(self.graft_variant), self.graft_options)

    def save_pretrained(  # type: ignore[override]  # the other options pass through
        self, save_directory: str | os.PathLike[str], **options: Any
    ) -> None:
        """As transformers does; the folder's configuration also names the variant and this package."""
        # the original format of some families renames weights, which only a stock model type would undo
        super().save_pretrained(save_directory, **{"save_original_format": False} | options)
        if options.get("is_main_process", True):
            self.describe(Path(save_directory))

    def describe(self, folder: Path) -> None:
        """Add the variant, the weights' digests and the shim to a folder with configuration and weights."""
        describe_checkpoint(folder, self.graft_family, self.graft_variant, self.graft_options, PREFIX)

    def save_configuration(self, folder: Path) -> None:
        """What transformers saves beside the weights."""
        super().save_pretrained(folder, state_dict={})

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # transformers reads a class's source file to find out; this one's says nothing about the layers
        return bool(cls.graft_family.model_class._can_set_attn_implementation())

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return bool(cls.graft_family.model_class._can_set_experts_implementation())

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        """`eager`, as in training, unless another one is asked for."""
        return str(super().get_correct_experts_implementation(requested_experts or "eager"))

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Nothing to register: otherwise saving would copy this module's source beside the weights."""


@functools.cache
def grafted_model_class(family: Family) -> type[GraftedModel]:
    """The grafted causal language model of a family."""
    stock = family.model_class
    body = {
        "__module__": __name__,
        "__doc__": f"{stock.__name__} with residual connections grafted onto its layers.",
        "__init__": GraftedModel.__init__,
        "graft_family": family,
        "config_class": grafted_config_class(family),
        "_supports_sdpa": family.attention_kernel == "sdpa",
        "_keep_in_fp32_modules_strict": [*(stock._keep_in_fp32_modules_strict or ()), *RESIDUAL_NAMES],
    }
    return type(f"{PREFIX}{stock.__name__}", (GraftedModel, stock), body)


@functools.cache
def grafted_config_class(family: Family) -> type[PreTrainedConfig]:
    """A family's configuration under its own model type: no checkpoint passes for a stock one."""
    stock = family.config_class
    body = {
        "__module__": __name__,
        "__doc__": f"{stock.__name__} of a grafted model; `mhc_bench` holds the variant and its options.",
        "model_type": f"mhc_bench_{stock.model_type}",
        "register_for_auto_class": classmethod(lambda cls, auto_class="AutoConfig": None),
    }
    return type(f"{PREFIX}{stock.__name__}", (stock,), body)


def __getattr__(name: str) -> Any:
    """A grafted class of a supported family by name, as the shim of a saved model asks for it."""
    makers: dict[str, Any] = {}
    for family in FAMILIES.values():
        makers[f"{PREFIX}{family.prefix}ForCausalLM"] = functools.partial(grafted_model_class, family)
        makers[f"{PREFIX}{family.config_name}"] = functools.partial(grafted_config_class, family)
    if name not in makers:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return makers[name]()

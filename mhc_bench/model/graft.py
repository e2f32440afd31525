"""Grafting: a stock decoder of transformers gets a residual connection of your choice, in place."""

from __future__ import annotations

import inspect
from typing import Any, cast

from transformers import PreTrainedModel

from mhc_bench.errors import UsageError
from mhc_bench.model.auto import GraftedModel, grafted_model_class
from mhc_bench.model.families import family_of, unsupported
from mhc_bench.model.layers import attach
from mhc_bench.residual import ResidualConnection, resolve, variant_names, variant_options
from mhc_bench.residual.options import checked_options
from mhc_bench.residual.registry import PLACE


def graft(model: PreTrainedModel, variant: str | type[ResidualConnection], **options: Any) -> PreTrainedModel:
    """Make every decoder layer of `model` read and write its stream through `variant`, in place.

    With `baseline` the model computes exactly what it did before. Shared weights keep their names and values;
    generation, the KV cache, gradient checkpointing and `save_pretrained` keep working. Between decoder
    layers flows the variant's stream, so `output_hidden_states` shows streams there.

    Args:
        model: returned; a causal language model of a supported family, for instance
            `AutoModelForCausalLM.from_config(cfg)`.
        variant: a registered name, `module:Class`, or the class.
        options: the variant's own options.

    Raises:
        UsageError: an unsupported or already grafted model, an unknown variant or option.
    """
    family = family_of(model)
    connection = resolve(variant) if isinstance(variant, str) else variant
    chosen = checked_options(connection, options, PLACE)
    name = variant if isinstance(variant, str) else variant_reference(variant)
    defaults = {k: v for k, v in variant_options(connection).items() if v is not inspect.Parameter.empty}
    if type(model) is not family.model_class and not isinstance(model, grafted_model_class(family)):
        raise UsageError(unsupported(type(model).__name__))
    attach(model, connection, chosen)
    model.__class__ = grafted_model_class(family)
    grafted = cast(GraftedModel, model)
    grafted.graft_variant, grafted.graft_options = name, defaults | chosen
    return grafted


def variant_reference(variant: type[ResidualConnection]) -> str:
    """The name by which a variant's class is found again: its registered one, or `module:Class`."""
    names = [name for name in variant_names() if resolve(name) is variant]
    return names[0] if names else f"{variant.__module__}:{variant.__qualname__}"

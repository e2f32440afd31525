"""Routed experts: a model's routers, what they chose, and the bias that balances their choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CORRECTION_BIAS = "e_score_correction_bias"
"""transformers' name of the persistent buffer [E] that enters which experts are chosen, not their weights."""


def routers(model: nn.Module) -> dict[str, nn.Module]:
    """Qualified name -> router with a correction bias, by layer; empty for a dense model."""
    return {name: each for name, each in model.named_modules() if CORRECTION_BIAS in each._buffers}


def correction_bias(router: nn.Module) -> Tensor:
    """The correction bias [E] of a router; fp32, also where the model computes in bf16."""
    return router.get_buffer(CORRECTION_BIAS)


@torch.no_grad()
def count_choices(output: tuple[Any, ...], load: Tensor) -> None:
    """Add to `load`, int64 [E], how many tokens a router's `output` sends to each expert.

    The choices are the one tensor of whole numbers in the output, whatever its shape.
    """
    (chosen,) = (each for each in output if isinstance(each, Tensor) and not each.is_floating_point())
    places = chosen.flatten().long()
    load.scatter_add_(0, places, torch.ones_like(places))


@torch.no_grad()
def rebalance(bias: Tensor, load: Tensor, speed: float) -> None:
    """bias += speed * sign(mean load - load), in place: loss-free balancing, arXiv 2408.15664.

    Args:
        bias: [E].
        load: int64 [E], over all ranks and the whole batch.
        speed: added to the bias of an expert below the mean, taken from one above it.
    """
    bias.add_((load.sum() - load * load.numel()).sign().to(bias.dtype), alpha=speed)

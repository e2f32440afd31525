"""What routers chose while a run was trained, and runs that must choose the same.

Rounding alone can flip a choice between two experts whose scores nearly agree, and a flipped token changes
the loss by far more than rounding does. Replaying one run's choices in another leaves only the rounding.
Shapes: `R` routers, `N` tokens of a step over all ranks, `k` experts per token.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mhc_bench.model import routers
from mhc_bench.training.module import ResidualTraining

Choices = list[Tensor]
"""Of each step, int64 [R, N, k], tokens in the order of the stream."""


@contextmanager
def routed(replay: Choices | None = None) -> Iterator[Choices]:
    """Notes what is chosen in training forward passes inside: what `replay` says, where it is given.

    A forced token still gets its weights from its scores, and gradients flow through them. A step's choices
    are joined over the ranks: collective. Not for recomputed layers, which would choose freely.
    """
    noted: Choices = []
    parts: list[Tensor] = []
    step, clip = ResidualTraining.training_step, ResidualTraining.configure_gradient_clipping

    def training_step(self: ResidualTraining, batch: Any, batch_idx: int) -> Tensor:
        chosen: list[Tensor] = []
        tokens = batch["ids"][:, 1:].numel()
        wanted = None if replay is None else share(replay[len(noted)], len(parts), tokens)
        hooks = [
            # before the load of the experts is counted
            router.register_forward_hook(functools.partial(route, chosen, number, wanted), prepend=True)
            for number, router in enumerate(routers(self.model).values())
        ]
        loss = step(self, batch, batch_idx)
        for hook in hooks:
            hook.remove()
        parts.append(torch.stack(chosen))
        return loss

    def clipping(self: ResidualTraining, *args: Any, **kwargs: Any) -> None:
        noted.append(joined(torch.cat(parts, dim=1)))
        parts.clear()
        clip(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResidualTraining, "training_step", training_step)
        patch.setattr(ResidualTraining, "configure_gradient_clipping", clipping)
        yield noted


def share(whole: Tensor, part: int, tokens: int) -> Tensor:
    """[R, tokens, k]: this rank's in its forward pass number `part`, of a step's choices."""
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    first = whole.shape[1] // world * rank + part * tokens
    return whole[:, first : first + tokens]


def route(
    chosen: list[Tensor],
    number: int,
    wanted: Tensor | None,
    router: Any,
    args: tuple[Any, ...],
    output: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """A DeepSeek-V3 router's output (logits, weights, choices), with the choices wanted."""
    logits, _, own = output
    choices = own if wanted is None else wanted[number]
    chosen.append(choices.detach().clone())
    if wanted is None:
        return output
    weights = logits.sigmoid().gather(1, choices)
    if router.norm_topk_prob:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return logits, weights * router.routed_scaling_factor, choices


def joined(own: Tensor) -> Tensor:
    """[R, N, k] from each rank's [R, N / world, k]."""
    if not dist.is_initialized():
        return own
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts, dim=1)


def flips(choices: Choices, others: Choices) -> list[int]:
    """Of each step: choices (of a token in a router) that the other run did not make, in whatever order."""
    return [
        int((mine[..., :, None] != theirs[..., None, :]).all(-1).sum())
        for mine, theirs in zip(choices, others, strict=True)
    ]


def with_one_flip(choices: Choices, step: int, experts: int) -> Choices:
    """The same but for one token of that step, which the last router sends elsewhere."""
    changed = [each.clone() for each in choices]
    token = changed[step][-1, 3]
    token[0] = next(expert for expert in range(experts) if expert not in token.tolist())
    return changed

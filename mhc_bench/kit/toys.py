"""Small connections with every parameter away from its start value, and chains of them. Shapes: `B T C`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mhc_bench.residual import ResidualConnection, build

WIDTH = 12
ROWS, TIME = 2, 5
"""B and T of `hidden`."""


def connection(
    variant: str | type[ResidualConnection], *, index: int = 1, depth: int = 4, seed: int = 0, **options: Any
) -> Any:
    """A connection in float64 whose parameters are all random: start values plus noise of their own size.

    The same each time, whatever was drawn before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 17 * index)
        made = build(variant, width=WIDTH, depth=depth, index=index, **options).double()
    generator = torch.Generator().manual_seed(seed + 17 * index)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return made


def chain(
    variant: str | type[ResidualConnection], *, depth: int = 4, **options: Any
) -> list[ResidualConnection]:
    """The connections of a model of `depth` sublayers."""
    return [connection(variant, index=index, depth=depth, **options) for index in range(depth)]


def fixed_sublayer(index: int, hidden: Tensor) -> Tensor:
    """Some F: causal (each position sees the mean up to itself) and different for every sublayer."""
    generator = torch.Generator().manual_seed(index)
    matrix = torch.randn(hidden.shape[-1], hidden.shape[-1], generator=generator).to(hidden)
    steps = torch.arange(1, hidden.shape[1] + 1).to(hidden).view(1, -1, 1)
    return torch.tanh((hidden.cumsum(1) / steps) @ matrix)


def run(
    connections: list[ResidualConnection],
    hidden: Tensor,
    sublayer: Callable[[int, Tensor], Tensor] = fixed_sublayer,
) -> Tensor:
    """[B, T, C] through expand, every sublayer and collapse."""
    stream = connections[0].expand(hidden)
    for index, each in enumerate(connections):
        read, carry = each.read(stream)
        stream = each.write(stream, sublayer(index, read), carry)
    return connections[-1].collapse(stream)


def hidden(
    *,
    batch: int = ROWS,
    time: int = TIME,
    width: int = WIDTH,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A hidden state [B, T, C]."""
    return torch.randn(batch, time, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)

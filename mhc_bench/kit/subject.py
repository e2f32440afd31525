"""What is checked: one variant with its options, on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mhc_bench.kit import toys
from mhc_bench.kit.backbones import filled, options_of, stock_of
from mhc_bench.model import graft
from mhc_bench.model.layers import parameter_owners
from mhc_bench.residual import ResidualConnection, build, resolve

ROUNDING = 1e-10
"""Of float64 over a few sublayers, relative."""


@dataclass(frozen=True)
class Backbone:
    """A decoder family and its configuration fields; the family's tiny model unless said otherwise."""

    family: str = "llama"
    options: Mapping[str, Any] = field(default_factory=dict)

    def stock(self) -> PreTrainedModel:
        """The stock model on the meta device."""
        return stock_of(self.family, dict(self.options) or options_of(self.family))


@dataclass(frozen=True)
class Subject:
    """A variant (a registered name, `module:Class` or the class), its options and a backbone."""

    variant: str | type[ResidualConnection]
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: Backbone = field(default_factory=Backbone)

    @property
    def kind(self) -> type[ResidualConnection]:
        """The variant's class."""
        return resolve(self.variant) if isinstance(self.variant, str) else self.variant

    def connection(self, index: int = 1) -> Any:
        """A connection of width 12 in float64, every parameter away from its start."""
        return toys.connection(self.kind, index=index, **self.options)

    def chain(self) -> list[ResidualConnection]:
        """Four such connections."""
        return toys.chain(self.kind, **self.options)

    def fresh(self, index: int = 1, *, width: int = toys.WIDTH, depth: int = 4) -> ResidualConnection:
        """A connection in fp32 at its start."""
        return build(self.kind, width=width, depth=depth, index=index, **self.options)

    def grafted(self) -> PreTrainedModel:
        """The variant on the backbone, on the meta device."""
        return graft(self.backbone.stock(), self.variant, **self.options)

    def model(self) -> Any:
        """The same with start weights."""
        return filled(self.grafted())

    def moved_model(self) -> Any:
        """The same with the connections' parameters away from their start."""
        model = self.model()
        with torch.no_grad():
            for number, (connection, own) in enumerate(parameter_owners(model).values()):
                parameter = connection.get_parameter(own)
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                parameter.add_(0.1 * noise)
        return model

    def baseline(self) -> Any:
        """The plain residual on the same backbone with the same shared weights."""
        return filled(graft(self.backbone.stock(), "baseline"))


def arriving(connections: list[ResidualConnection], index: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A stream as long as the one that reaches sublayer `index`, with random entries in every slot."""
    with torch.no_grad():
        stream = connections[0].expand(toys.hidden())
        for number, each in enumerate(connections[:index]):
            hidden, carry = each.read(stream)
            stream = each.write(stream, toys.fixed_sublayer(number, hidden), carry)
    drawn = torch.randn(stream.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return drawn.to(dtype)

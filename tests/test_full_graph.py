"""No residual connection breaks a graph: `fullgraph=True` on a layer's residual path, against eager."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mhc_bench.model.families import FAMILIES, Sublayer
from mhc_bench.model.layers import residual_path
from mhc_bench.ops.choice import operations_named
from mhc_bench.residual import build, resolve, variant_names, variant_options

WIDTH = 12
TOLERANCE = 2e-6
"""Relative to a tensor's largest entry: a few roundings."""
OPTIONS: dict[str, Any] = {"streams": 3, "sinkhorn_iterations": 3}
"""Those of them that a variant has: tracing takes longer with each round."""


class Layer(nn.Module):
    """A decoder layer that is its residual path and little else."""

    def __init__(self, variant: str, operations: str) -> None:
        super().__init__()
        known = variant_options(resolve(variant))
        options = {name: value for name, value in OPTIONS.items() if name in known}
        self.attention_residual, self.mlp_residual = (
            build(variant, width=WIDTH, depth=2, index=index, **options) for index in (0, 1)
        )
        self.family, self.is_first, self.is_last = FAMILIES["llama"], True, True
        drawn = torch.Generator().manual_seed(3)
        self.sublayers = [torch.randn(WIDTH, WIDTH, generator=drawn) / WIDTH**0.5 for _ in range(2)]
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=drawn))
        for connection in (self.attention_residual, self.mlp_residual):
            connection.use_operations(operations_named(operations))

    def forward(self, hidden: Tensor) -> Tensor:
        return residual_path(self, hidden, self.apply_sublayer)

    def apply_sublayer(self, sublayer: Sublayer, hidden: Tensor) -> Tensor:
        weight = self.sublayers[sublayer is self.family.mlp]
        return torch.tanh(hidden @ weight)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """No graph of another test; dynamo itself uses autograd functions in a way that warns."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    torch._dynamo.reset()


def passed(layer: nn.Module, run: Any) -> dict[str, Tensor]:
    """Output and gradients of a weighted sum of it."""
    hidden = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(4)).requires_grad_()
    output = run(hidden)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    (output * weights).sum().backward()
    assert hidden.grad is not None
    found = {"output": output.detach(), "hidden": hidden.grad}
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad
    return found


@pytest.mark.parametrize("operations", ["eager", "reference"])
@pytest.mark.parametrize("variant", variant_names())
def test_the_residual_path_is_one_graph(variant: str, operations: str) -> None:
    layer = Layer(variant, operations)
    twin = copy.deepcopy(layer)
    eager = passed(layer, layer)
    whole = torch.compile(twin, fullgraph=True, backend="aot_eager")
    compiled = passed(twin, whole)
    counted = torch._dynamo.utils.counters
    assert counted["stats"]["unique_graphs"] == 1 and not counted["graph_break"]
    largest = {name: float(each.abs().max()) for name, each in eager.items()}
    for name, expected in eager.items():
        scale = max(largest[name], max(largest.values()) / 10)  # some gradients are zero by construction
        torch.testing.assert_close(compiled[name], expected, rtol=0, atol=TOLERANCE * scale, msg=name)


def test_a_break_would_be_found() -> None:
    layer = Layer("baseline", "eager")

    def breaking(sublayer: Sublayer, hidden: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return hidden

    layer.apply_sublayer = breaking  # type: ignore[method-assign]
    with pytest.raises(torch._dynamo.exc.Unsupported):
        passed(layer, torch.compile(layer, fullgraph=True, backend="aot_eager"))

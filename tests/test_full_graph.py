"""The oracle of the operations breaks no graph either: `fullgraph=True` on a layer's residual path."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mhc_bench.kit.compiled import Layer, differing, passed
from mhc_bench.model.families import Sublayer

OPTIONS: dict[str, dict[str, Any]] = {
    "hc": {"streams": 3},
    "mhc": {"streams": 3, "sinkhorn_iterations": 3},  # tracing takes longer with each round
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """No graph of another test; dynamo itself uses autograd functions in a way that warns."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("variant", OPTIONS)
def test_the_residual_path_over_the_oracle_is_one_graph(variant: str) -> None:
    layer = Layer(variant, "reference", **OPTIONS[variant])
    twin = copy.deepcopy(layer)
    eager = passed(layer, layer)
    compiled = passed(twin, torch.compile(twin, fullgraph=True, backend="aot_eager"))
    counted = torch._dynamo.utils.counters
    assert counted["stats"]["unique_graphs"] == 1 and not counted["graph_break"]
    assert compiled.keys() == eager.keys()
    assert differing(compiled, eager) == ""
    assert differing({**compiled, "output": compiled["output"] + 1e-4}, eager) == "output"


def test_a_break_would_be_found() -> None:
    layer = Layer("baseline")

    def breaking(sublayer: Sublayer, hidden: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return hidden

    layer.apply_sublayer = breaking  # type: ignore[method-assign]
    with pytest.raises(torch._dynamo.exc.Unsupported):
        passed(layer, torch.compile(layer, fullgraph=True, backend="aot_eager"))

"""Every implementation of the operations computes what the oracle computes in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from interpreted import wherever
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.model import graft, use_operations
from mhc_bench.ops.choice import IMPLEMENTATIONS, operations_named
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.types import Coefficients, HcCoefficients, MhcCoefficients, ProjectedCoefficients

N, C = 3, 8
ORACLE = operations_named("reference")
EPSILON = 1e-3


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hc_of(p: list[Tensor]) -> Coefficients:
    return HcCoefficients(p[0], (p[1], p[2], p[3]), (p[4], p[5]), EPSILON)


def mhc_of(p: list[Tensor]) -> Coefficients:
    return MhcCoefficients((p[0], p[1], p[2]), (p[3], p[4], p[5]), (p[6], p[7], p[8]), 6, EPSILON)


def projected_of(p: list[Tensor]) -> Coefficients:
    def activate(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pre, post, res = torch.split(raw, [N, N, N * N], dim=-1)
        return torch.sigmoid(pre), torch.tanh(post), res.unflatten(-1, (N, N)).softmax(-1)

    return ProjectedCoefficients(p[0], EPSILON, activate)


SIZES = (N, N, N * N)
KINDS: dict[str, tuple[Callable[[list[Tensor]], Coefficients], list[tuple[int, ...]]]] = {
    "hc": (hc_of, [(2 + N, C), (N,), (N,), (N, N), (1,), (1,)]),
    "mhc": (mhc_of, [*((size, N * C) for size in SIZES), *((size,) for size in SIZES), (1,), (1,), (1,)]),
    "projected": (projected_of, [(sum(SIZES), N * C)]),
}


def sublayers(operations: Operations, given: list[Tensor], of: Callable[[list[Tensor]], Any]) -> list[Tensor]:
    """Two sublayers in a row, each with a nonlinear F: every operation, and what they hand on."""
    stream, *parameters = given
    coefficients = of(parameters)
    first = operations.read(stream, coefficients)
    written, second = operations.write_read(
        first.through, torch.tanh(first.hidden), first.post, first.res, coefficients
    )
    last = operations.write(second.through, torch.sin(second.hidden), second.post, second.res)
    return [written, last, second.hidden, *(each[k] for each in (first, second) for k in (1, 2, 3))]


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_sublayers_have_the_oracles_values_and_gradients(name: str, kind: str) -> None:
    wherever(name, lambda: compare_with_the_oracle(name, kind))


def compare_with_the_oracle(name: str, kind: str) -> None:
    of, shapes = KINDS[kind]
    exact = [drawn(2, 3, N, C, seed=0), *(drawn(*shape, seed=1 + k) for k, shape in enumerate(shapes))]
    results = []
    for operations, dtype in ((ORACLE, torch.float64), (operations_named(name), torch.float32)):
        given = [each.to(dtype).requires_grad_() for each in exact]
        values = sublayers(operations, given, of)
        weights = [drawn(*each.shape, seed=60 + k).to(dtype) for k, each in enumerate(values)]
        total = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
        results.append([*values, *torch.autograd.grad(total, given)])  # type: ignore[arg-type]
    for place, (expected, ours) in enumerate(zip(*results, strict=True)):
        assert expected.abs().max() > 1e-3
        error = (ours.double() - expected).abs().max() / expected.abs().max()
        assert error < 2e-5, f"{place}: {error:.1e}"


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_streams_keep_bf16_and_maps_are_fp32(name: str) -> None:
    def check() -> None:
        of, shapes = KINDS["mhc"]
        parameters = [drawn(*shape, seed=1 + k).float() for k, shape in enumerate(shapes)]
        read = operations_named(name).read(drawn(2, 3, N, C, seed=0).bfloat16(), of(parameters))
        assert [each.dtype for each in read] == [torch.bfloat16, *3 * [torch.float32], torch.bfloat16]

    wherever(name, check)


def test_an_unknown_implementation_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="reference"):
        operations_named("referense")


def test_a_grafted_model_computes_with_the_implementation_that_it_is_given() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = graft(LlamaForCausalLM(config), "mhc")
    use_operations(model, "reference")
    assert model.model.layers[0].mlp_residual.operations.name == "reference"

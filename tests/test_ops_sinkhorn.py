"""Sinkhorn: the formula, its derivative, and what happens to logits that no sane run would have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_bench.ops import reference
from mhc_bench.ops.sinkhorn import FLOOR, SinkhornTrace, sinkhorn_backward, sinkhorn_forward


class Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, iterations: int) -> Tensor:
        trace = sinkhorn_forward(logits, iterations)
        ctx.save_for_backward(*trace)
        return trace.matrix.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return sinkhorn_backward(grad, SinkhornTrace(*ctx.saved_tensors)), None


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """The operators with their backward pass, for logits [..., n, n] as [out, in]."""
    n = logits.shape[-1]
    tokens_last = logits.reshape(-1, n, n).permute(1, 2, 0).contiguous()
    matrix: Tensor = Sinkhorn.apply(tokens_last, iterations)  # type: ignore[no-untyped-call]
    return matrix.permute(2, 0, 1).reshape(logits.shape)


def loop_oracle(logits: list[list[float]], rounds: int) -> list[list[float]]:
    """exp, then columns and rows divided by their sums, entry by entry."""
    n = len(logits)
    matrix = [[math.exp(value) for value in row] for row in logits]
    for _ in range(rounds):
        for j in range(n):
            total = sum(matrix[i][j] for i in range(n))
            for i in range(n):
                matrix[i][j] /= total
        for i in range(n):
            total = sum(matrix[i])
            matrix[i] = [value / total for value in matrix[i]]
    return matrix


def clamped(logits: Tensor, rounds: int) -> Tensor:
    """The clamped function in plain autograd operations, maximum included."""
    top = logits.amax(-2, keepdim=True)
    matrix = (torch.maximum(logits, top + FLOOR) - top).exp()
    for _ in range(rounds):
        matrix = matrix / matrix.sum(-2, keepdim=True)
        matrix = matrix / matrix.sum(-1, keepdim=True)
    return matrix


def logits(*shape: int, std: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


@pytest.mark.parametrize("version", [sinkhorn, reference.sinkhorn])
@pytest.mark.parametrize("rounds", [1, 2, 20])
@pytest.mark.parametrize("std", [0.5, 4.0])
def test_equals_the_loop_over_entries(version: object, rounds: int, std: float) -> None:
    values = logits(3, 4, 4, std=std)
    expected = torch.tensor([loop_oracle(each.tolist(), rounds) for each in values], dtype=torch.float64)
    assert callable(version)
    torch.testing.assert_close(version(values, rounds), expected, rtol=1e-11, atol=1e-13)


def test_rows_come_last_and_are_exact_while_columns_carry_the_error() -> None:
    matrix = sinkhorn(logits(64, 4, 4, std=3.0), 2)
    assert (matrix.sum(-1) - 1).abs().max() < 1e-14
    assert (matrix.sum(-2) - 1).abs().max() > 1e-3


def test_one_stream_gives_exactly_one_and_no_gradient() -> None:
    values = logits(7, 1, 1).requires_grad_()
    matrix = sinkhorn(values, 20)
    matrix.sum().backward()
    assert torch.equal(matrix, torch.ones(7, 1, 1, dtype=torch.float64))
    assert values.grad is not None and torch.equal(values.grad, torch.zeros_like(values))


@pytest.mark.parametrize(("n", "rounds", "std"), [(2, 20, 1.0), (3, 1, 1.0), (4, 20, 0.3), (4, 20, 5.0)])
def test_backward_is_exact_whether_or_not_it_has_converged(n: int, rounds: int, std: float) -> None:
    values = logits(2, n, n, std=std).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sinkhorn(x, rounds), values, atol=1e-8, rtol=1e-6)


def test_backward_is_that_of_the_clamped_function_where_the_clamp_acts() -> None:
    values = logits(16, 4, 4, std=60.0, seed=3).requires_grad_()
    assert ((values - values.amax(-2, keepdim=True)) < FLOOR).any()
    weight = logits(16, 4, 4, seed=4)
    ours = torch.autograd.grad((sinkhorn(values, 20) * weight).sum(), values)[0]
    expected = torch.autograd.grad((clamped(values, 20) * weight).sum(), values)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(sinkhorn(values, 20).isfinite(), torch.ones_like(values, dtype=torch.bool))


def test_the_gradient_does_not_depend_on_the_memory_layout_of_what_comes_in() -> None:
    values, weight = logits(5, 3, 3).requires_grad_(), logits(5, 3, 3, seed=1)
    strided = weight.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    plain, other = (torch.autograd.grad(sinkhorn(values, 5), values, w)[0] for w in (weight, strided))
    assert torch.equal(plain, other)


@pytest.mark.parametrize("std", [10.0, 1e3, 1e30])
def test_any_finite_fp32_logits_give_finite_matrices_and_gradients(std: float) -> None:
    values = logits(256, 4, 4, std=std, dtype=torch.float32).requires_grad_()
    matrix = sinkhorn(values, 20)
    (matrix * logits(256, 4, 4, seed=1, dtype=torch.float32)).sum().backward()
    assert matrix.isfinite().all() and (matrix.sum(-1) - 1).abs().max() < 1e-6
    assert values.grad is not None and values.grad.isfinite().all()


def test_a_row_far_below_all_others_survives_where_a_plain_exponential_gives_zero_by_zero() -> None:
    values = torch.zeros(1, 3, 3)
    values[0, 1] = -500.0
    assert values.exp()[0, 1].sum() == 0  # what the plain form would divide by
    matrix = sinkhorn(values, 20)
    torch.testing.assert_close(matrix, torch.full((1, 3, 3), 1 / 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_logit_spoils_its_own_token_visibly_and_no_other(bad: float) -> None:
    values = logits(3, 4, 4, dtype=torch.float32)
    values[1, 2, 0] = bad
    values.requires_grad_()
    matrix = sinkhorn(values, 20)
    matrix.square().sum().backward()
    assert values.grad is not None
    for each in (matrix, values.grad):
        assert each[1].isnan().any()
        assert each[[0, 2]].isfinite().all()

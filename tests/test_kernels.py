"""The Triton kernels, interpreted, against the oracle in float64: values and every gradient."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest
import torch
from interpreted import interpreted, wherever
from torch import Tensor

from mhc_bench.ops.choice import operations_named
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.types import Coefficients, HcCoefficients, MhcCoefficients

EPSILON = 1e-3
NAMES = (
    *(
        "last",
        "written",
        "first hidden",
        "hidden",
        "pre",
        "post",
        "res",
        "first pre",
        "first post",
        "first res",
    ),
    *("d stream", "d update"),
)


class Case(NamedTuple):
    kind: str
    n: int
    tokens: int
    width: int
    spread: float
    """Standard deviation of the logits of mHC's maps, or of HC's static maps."""
    iterations: int = 6


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters(case: Case) -> list[Tensor]:
    n, c = case.n, case.width
    if case.kind == "hc":
        static = [case.spread * numbers(*shape, seed=k) for k, shape in enumerate(((n,), (n,), (n, n)))]
        return [
            numbers(2 + n, c, seed=9) / c**0.5,
            *static,
            0.3 + numbers(1, seed=7),
            0.5 + numbers(1, seed=8),
        ]
    phi = [
        case.spread * numbers(rows, n * c, seed=k) / (n * c) ** 0.5 for k, rows in enumerate((n, n, n * n))
    ]
    bias = [0.5 * case.spread * numbers(rows, seed=4 + k) for k, rows in enumerate((n, n, n * n))]
    return [*phi, *bias, *(torch.full((1,), value, dtype=torch.float64) for value in (0.9, -0.7, 0.8))]


def coefficients(case: Case, p: list[Tensor]) -> Coefficients:
    if case.kind == "hc":
        return HcCoefficients(p[0], (p[1], p[2], p[3]), (p[4], p[5]), EPSILON)
    return MhcCoefficients(
        (p[0], p[1], p[2]), (p[3], p[4], p[5]), (p[6], p[7], p[8]), case.iterations, EPSILON
    )


def results(
    operations: Operations, case: Case, dtype: torch.dtype, maps: torch.dtype | None = None
) -> list[Tensor]:
    """NAMES and the gradients of the parameters: two sublayers in a row, the streams made from a leaf.

    Parameters and maps are `maps`, by default as the streams. In float64 the streams are those of `dtype`.
    """
    maps = maps or dtype
    streams = maps if maps == torch.float64 else dtype
    stream = numbers(case.tokens, case.n, case.width, seed=20).to(dtype).to(streams).requires_grad_()
    update = numbers(case.tokens, case.width, seed=21).to(dtype).to(streams).requires_grad_()
    given = [each.to(maps).requires_grad_() for each in parameters(case)]
    own = coefficients(case, given)
    first = operations.read(stream * 1, own)
    written, second = operations.write_read(first.through, update, first.post, first.res, own)
    last = operations.write(second.through, second.hidden, second.post, second.res)
    values = [last, written, first.hidden, *second[:4], *first[1:4]]
    weights = [numbers(*each.shape, seed=30 + k).to(each.dtype) for k, each in enumerate(values)]
    total = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
    assert isinstance(total, Tensor)
    return [
        each.detach().double() for each in (*values, *torch.autograd.grad(total, [stream, update, *given]))
    ]


CASES = [
    *(Case(kind, n, 3, 20, 1.0) for kind in ("mhc", "hc") for n in (1, 3, 4, 5, 8)),
    Case("mhc", 2, 1, 7, 1.0, 1),
    Case("hc", 5, 1, 33, 1.0),
    Case("mhc", 4, 19, 7, 1.0, 6),
    *(Case("mhc", 4, 3, 16, spread, 20) for spread in (0.01, 4.0, 16.0)),
]


SEVERAL_BLOCKS = {
    Case("mhc", 4, 40, 24, 1.0, 1): 2,
    Case("hc", 4, 40, 24, 1.0): 16,
    Case("mhc", 6, 40, 24, 1.0, 1): 4,
    Case("hc", 5, 33, 24, 1.0): 16,
}
"""For how many programs sums over tokens are split: with few a program sums over several blocks."""


@functools.cache
def found() -> Any:
    """All cases in one child."""
    return interpreted(
        lambda: {case: results(operations_named("triton"), case, torch.float32) for case in CASES}
    )


def composed(operations: Operations, dtype: torch.dtype) -> list[Tensor]:
    """What variants are composed of, 40 tokens of 4 streams of 24: values and gradients.

    70 rows are more than one launch projects with.
    """
    given = [numbers(*shape, seed=k) for k, shape in enumerate(((40, 4, 24), (70, 96), (40, 4)))]
    stream, weight, pre = (each.to(dtype).requires_grad_() for each in given)
    values = [operations.project(stream, weight, EPSILON), operations.aggregate(stream, pre)]
    total = sum((each * numbers(*each.shape, seed=9).to(dtype)).sum() for each in values)
    assert isinstance(total, Tensor)
    return [each.detach().double() for each in (*values, *torch.autograd.grad(total, [stream, weight, pre]))]


@functools.cache
def found_in_several_blocks() -> Any:
    """As of `found`, with blocks of 16 channels; and what is `composed`."""

    def work() -> dict[Case | str, list[Tensor]]:
        from mhc_bench.ops.kernels import blocks

        blocks.channels = lambda width, most: 16  # type: ignore[assignment]
        made: dict[Case | str, list[Tensor]] = {
            "composed": composed(operations_named("triton"), torch.float32)
        }
        for case, programs in SEVERAL_BLOCKS.items():
            blocks.PROGRAMS = programs
            made[case] = results(operations_named("triton"), case, torch.float32)
        return made

    return interpreted(work)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_the_oracles(case: Case) -> None:
    assert_close_to_the_oracle(found()[case], case)


@pytest.mark.parametrize("case", SEVERAL_BLOCKS, ids=str)
def test_programs_side_by_side_and_blocks_in_turn_add_up(case: Case) -> None:
    assert_close_to_the_oracle(found_in_several_blocks()[case], case)


def test_projections_and_sums_over_streams_in_several_blocks_are_the_oracles() -> None:
    exact = composed(operations_named("reference"), torch.float64)
    for ours, expected in zip(found_in_several_blocks()["composed"], exact, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def assert_close_to_the_oracle(found: list[Tensor], case: Case) -> None:
    exact = results(operations_named("reference"), case, torch.float64)
    names = [*NAMES, *(f"d parameter {k}" for k in range(len(exact) - len(NAMES)))]
    # at 16 the maps are nearly permutations, and rounding the logits alone moves them by 1e-5
    tolerance = {16.0: 2e-4, 4.0: 5e-5}.get(case.spread, 3e-5)
    # a gate's gradient is one number, a sum that may nearly cancel: held against the largest gate's
    gates = max(each.abs().item() for each in exact if each.numel() == 1)
    for name, ours, expected in zip(names, found, exact, strict=True):
        absolute = (ours - expected).abs().max().item()
        size = gates if expected.numel() == 1 else expected.abs().max().item()
        relative = absolute / max(size, 1e-30)
        print(f"{name:14} absolute {absolute:.1e} relative {relative:.1e}")
        # what is zero in exact arithmetic (H_res of one stream) has no relative error
        assert relative < tolerance or absolute < 1e-6, name


def one_logit(value: float) -> list[Tensor]:
    """Four streams, one bias of H_res far from the others."""
    case = Case("mhc", 4, 3, 8, 0.5, 6)
    given = parameters(case)
    given[5][6] = value
    return given


def written_and_gradients(name: str, given: list[Tensor], stream: Tensor, kind: str = "mhc") -> list[Tensor]:
    """H_res, and the gradients through it of the stream and of two parameters: phi_res and bias_res, or
    HC's weight and static H_res.
    """
    case = Case(kind, 4, len(stream), 8, 0.5, 6)
    leaves = [each.float().requires_grad_() for each in (stream, *given)]
    read = operations_named(name).read(leaves[0], coefficients(case, leaves[1:]))
    weight = numbers(*read.res.shape, seed=2).float()
    wanted = [leaves[0], *(leaves[3:7:3] if kind == "mhc" else leaves[1:5:3])]
    return [read.res.detach(), *torch.autograd.grad((read.res * weight).sum(), wanted)]


def test_very_low_logits_are_raised_as_in_the_eager_implementation() -> None:
    stream = numbers(3, 4, 8, seed=1)

    def work(name: str) -> list[list[Tensor]]:
        low = (-70.0, -100.0, -300.0, float("-inf"))
        return [written_and_gradients(name, one_logit(value), stream) for value in low]

    for ours, eager in zip(interpreted(lambda: work("triton")), work("eager"), strict=True):
        for mine, expected in zip(ours, eager, strict=True):
            assert torch.isfinite(expected).all()
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["mhc", "hc"])
def test_a_token_of_nan_stays_nan_and_touches_no_other(kind: str) -> None:
    case, healthy = Case(kind, 4, 5, 8, 0.5), numbers(5, 4, 8, seed=1)
    broken = healthy.clone()
    broken[2] = float("nan")

    def work() -> list[list[Tensor]]:
        return [written_and_gradients("triton", parameters(case), each, kind) for each in (healthy, broken)]

    (res, grad, *_), (broken_res, broken_grad, *of_parameters) = interpreted(work)
    others = torch.tensor([0, 1, 3, 4])
    assert broken_res[2].isnan().all() and broken_grad[2].isnan().all()
    assert torch.equal(broken_res[others], res[others]) and torch.equal(broken_grad[others], grad[others])
    # an added static map has the gradient of what it is added to, which no stream enters
    assert all(each.isnan().any() for each in of_parameters[: 2 if kind == "mhc" else 1])


def test_a_nan_logit_makes_the_whole_matrix_nan() -> None:
    ours = interpreted(
        lambda: written_and_gradients("triton", one_logit(float("nan")), numbers(3, 4, 8, seed=1))
    )
    assert ours[0].isnan().all() and ours[1].isnan().all()


@pytest.mark.parametrize("logit", [50.0, 1e4, 1e30])
def test_high_logits_overflow_nowhere(logit: float) -> None:
    """One entry of H_res far above the others."""
    stream = numbers(3, 4, 8, seed=1)
    ours, eager = (
        wherever(name, functools.partial(written_and_gradients, name, one_logit(logit), stream))
        for name in ("triton", "eager")
    )
    for mine, expected in zip(ours, eager, strict=True):
        assert torch.isfinite(expected).all()
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_reruns_are_equal_bit_for_bit() -> None:
    """That no kernel adds atomically is seen where they are compiled (`test_kernels_ahead_of_time.py`)."""
    case = Case("mhc", 2, 33, 16, 1.0, 2)

    def work() -> list[list[Tensor]]:
        return [results(operations_named("triton"), case, torch.float32) for _ in range(2)]

    first, second = interpreted(work)
    assert all(map(torch.equal, first, second))


def test_bf16_streams_are_read_and_written_with_fp32_arithmetic() -> None:
    cases = [Case(kind, 3, 4, 24, 1.0, 4) for kind in ("mhc", "hc")]
    found = interpreted(lambda: [rounded(operations_named("triton"), case, torch.float32) for case in cases])
    for case, ours in zip(cases, found, strict=True):
        exact = rounded(operations_named("reference"), case, torch.float64)
        for mine, expected in zip(ours, exact, strict=True):
            # one rounding of each result; the interpreter cuts bits off where a GPU rounds
            assert (mine - expected).abs().max() < 2**-7 * expected.abs().max()


def rounded(operations: Operations, case: Case, maps: torch.dtype) -> list[Tensor]:
    """Written, hidden and the streams' gradient of bf16 streams."""
    stream = numbers(case.tokens, case.n, case.width, seed=20).bfloat16()
    leaf = stream.to(torch.bfloat16 if maps == torch.float32 else maps).requires_grad_()
    given = [each.to(maps) for each in parameters(case)]
    read = operations.read(leaf, coefficients(case, given))
    written = operations.write(read.through, torch.ones_like(read.hidden), read.post, read.res)
    assert written.dtype == read.hidden.dtype == leaf.dtype and read.res.dtype == maps
    (grad,) = torch.autograd.grad(written.sum() + read.hidden.sum(), leaf)
    return [written.detach().double(), read.hidden.detach().double(), grad.double()]


def test_bf16_streams_through_a_write_and_the_next_read_have_every_gradient() -> None:
    cases = [Case(kind, n, 4, 24, 1.0, 4) for kind in ("mhc", "hc") for n in (4, 8)]
    ours = interpreted(
        lambda: [results(operations_named("triton"), case, torch.bfloat16, torch.float32) for case in cases]
    )
    for case, found in zip(cases, ours, strict=True):
        exact = results(operations_named("reference"), case, torch.bfloat16, torch.float64)
        for mine, expected in zip(found, exact, strict=True):
            # two sublayers in a row, each of which rounds what it hands on
            assert (mine - expected).abs().max() < 2**-4 * expected.abs().max()

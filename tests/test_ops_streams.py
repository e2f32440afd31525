"""Reads and writes with hand-written backward passes, against loops and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.ops.hc import hc_read
from mhc_bench.ops.mhc import mhc_read
from mhc_bench.ops.streams import write

N, C = 3, 4


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (scale * drawn).requires_grad_()


def hc_arguments() -> list[Tensor]:
    shapes = [(2 + N, C), (N,), (N,), (N, N), (1,), (1,)]
    return [values(2, 2, N, C), *(values(*shape, seed=1 + k) for k, shape in enumerate(shapes))]


def mhc_arguments() -> list[Tensor]:
    sizes = (N, N, N * N)
    shapes = [*((size, N * C) for size in sizes), *((size,) for size in sizes), (1,), (1,), (1,)]
    return [values(2, 2, N, C), *(values(*shape, seed=1 + k) for k, shape in enumerate(shapes))]


def fast_hc(x: Tensor, weight: Tensor, pre: Tensor, post: Tensor, res: Tensor, *scale: Tensor) -> Any:
    return hc_read(x, weight, (pre, post, res), (scale[0], scale[1]), 1e-3)


def plain_hc(x: Tensor, weight: Tensor, pre: Tensor, post: Tensor, res: Tensor, *scale: Tensor) -> Any:
    maps = reference.hc_maps(x, weight, (pre, post, res), (scale[0], scale[1]), 1e-3)
    return reference.read(x, maps[0]), *maps


def fast_mhc(x: Tensor, *p: Tensor) -> Any:
    return mhc_read(x, (p[0], p[1], p[2]), (p[3], p[4], p[5]), (p[6], p[7], p[8]), 6, 1e-3)


def plain_mhc(x: Tensor, *p: Tensor) -> Any:
    maps = reference.mhc_maps(x, torch.cat(p[:3]), torch.cat(p[3:6]), torch.cat(p[6:]), 6, 1e-3)
    return reference.read(x, maps[0]), *maps


READS = pytest.mark.parametrize(
    ("fast", "plain", "arguments"),
    [(fast_hc, plain_hc, hc_arguments), (fast_mhc, plain_mhc, mhc_arguments)],
    ids=["hc", "mhc"],
)


@READS
def test_read_equals_its_reference_in_values_and_all_gradients(
    fast: Callable[..., Any], plain: Callable[..., Any], arguments: Callable[[], list[Tensor]]
) -> None:
    given = arguments()
    ours, expected = fast(*given), plain(*given)
    weights = [values(*each.shape, seed=50 + k).detach() for k, each in enumerate(expected)]
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)
    mine, other = (
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(result, weights, strict=True)), given)
        for result in (ours, expected)
    )
    for name, a, b in zip(range(len(given)), mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")
        assert b.abs().max() > 1e-6


@READS
def test_read_passes_a_check_by_finite_differences(
    fast: Callable[..., Any], plain: Callable[..., Any], arguments: Callable[[], list[Tensor]]
) -> None:
    assert torch.autograd.gradcheck(fast, arguments(), atol=1e-7, rtol=1e-5)


def write_loop(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    """X'[i] = sum over j of res[i, j] X[j], plus post[i] F: entry by entry."""
    tokens, n, _ = stream.shape
    rows = [
        [sum((res[t, i, j] * stream[t, j] for j in range(n)), post[t, i] * update[t]) for i in range(n)]
        for t in range(tokens)
    ]
    return torch.stack([torch.stack(row) for row in rows])


def write_arguments() -> list[Tensor]:
    return [values(2, N, C), values(2, C, seed=1), values(2, N, seed=2), values(2, N, N, seed=3)]


@pytest.mark.parametrize("version", [write, reference.write])
def test_write_equals_the_loop_with_res_as_out_in(version: Callable[..., Tensor]) -> None:
    given = write_arguments()
    torch.testing.assert_close(version(*given), write_loop(*given), rtol=1e-12, atol=1e-12)
    transposed = [*given[:3], given[3].transpose(1, 2)]
    assert (version(*transposed) - write_loop(*given)).abs().max() > 0.1


def test_write_passes_a_check_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(write, write_arguments(), atol=1e-8, rtol=1e-6)


def test_write_takes_an_expanded_gradient() -> None:
    given = write_arguments()
    ours = torch.autograd.grad(write(*given).sum(), given)
    expected = torch.autograd.grad(write_loop(*given).sum(), given)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_read_equals_the_loop() -> None:
    stream, pre = values(2, N, C), values(2, N, seed=5)
    expected = torch.stack([sum(pre[t, j] * stream[t, j] for j in range(N)) for t in range(2)])  # type: ignore[arg-type]
    torch.testing.assert_close(reference.read(stream, pre), expected)


def test_the_oracles_maps_are_each_tokens_own_whatever_lies_ahead_of_it_and_by_default() -> None:
    generator = torch.Generator().manual_seed(4)
    n, width = 3, 5
    stream, phi = (torch.randn(shape, generator=generator) for shape in ((2, 7, n, width), (15, n * width)))
    bias, alpha = torch.randn(15, generator=generator), torch.tensor([0.3, 0.5, 0.7])
    expected = reference.mhc_maps(stream, phi, bias, alpha, 20, 1e-6)
    with torch.device("meta"):
        found = reference.mhc_maps(stream.view(14, n, width), phi, bias, alpha, 20, 1e-6)
    for each, same in zip(found, expected, strict=True):
        torch.testing.assert_close(each, same.flatten(0, 1))

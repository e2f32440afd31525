"""mHC, by every implementation, against Liger's Triton kernels in the interpreter (extra `peers`).

Liger normalises rows first and columns last. At logits that let twenty rounds converge both orders end in the
same matrix, so values and gradients agree to that convergence and no further.
"""

from __future__ import annotations

import functools
import importlib.util

import pytest
import torch
from interpreted import interpreted, wherever
from torch import Tensor

from mhc_bench.ops.choice import IMPLEMENTATIONS, operations_named
from mhc_bench.ops.types import MhcCoefficients

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed"
)
N, WIDTH, TOKENS, EPSILON = 4, 16, 3, 1e-6
SIZES = [N, N, N * N]


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def operands() -> list[Tensor]:
    """Stream [1, T, n, C], phi [K, n*C], bias [K] and alpha [3], fp32; H_res is as [out, in] for both."""
    phi = drawn(sum(SIZES), N * WIDTH, seed=1) / (N * WIDTH) ** 0.5
    made = (
        drawn(1, TOKENS, N, WIDTH, seed=0),
        phi,
        0.3 * drawn(sum(SIZES), seed=2),
        torch.tensor([0.9, -0.7, 0.3]),
    )
    return [each.requires_grad_() for each in made]


def with_gradients(given: list[Tensor], results: list[Tensor]) -> list[Tensor]:
    """The results, and the gradient that a fixed loss gives to every operand."""
    total = torch.stack(
        [(each * drawn(*each.shape, seed=10 + place)).sum() for place, each in enumerate(results)]
    ).sum()
    return [each.detach() for each in (*results, *torch.autograd.grad(total, given))]


@functools.cache
def ligers() -> list[Tensor]:
    def work() -> list[Tensor]:
        from liger_kernel.transformers import functional as liger

        given = operands()
        stream, phi, bias, alpha = given
        pre, post, res = liger.liger_mhc_coeffs(
            stream,
            phi.T.contiguous(),
            bias,
            *alpha.unbind(),
            allow_fp32=True,
            tmax=20,
            rms_eps=EPSILON,
            sinkhorn_eps=0.0,
        )
        hidden = liger.liger_mhc_pre(stream, pre)
        written = liger.liger_mhc_post_res(stream, torch.tanh(hidden), post, res)
        return with_gradients(given, [hidden, post, res, written])

    found: list[Tensor] = interpreted(work)
    return found


def ours(name: str) -> list[Tensor]:
    given = operands()
    stream, phi, bias, alpha = given
    parts = (phi.split(SIZES), bias.split(SIZES), alpha.split(1))
    operations = operations_named(name)
    read = operations.read(stream, MhcCoefficients(*parts, 20, EPSILON))
    written = operations.write(read.through, torch.tanh(read.hidden), read.post, read.res)
    return with_gradients(given, [read.hidden, read.post, read.res, written])


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_values_and_gradients_equal_ligers_where_sinkhorn_converges(name: str) -> None:
    for place, (mine, theirs) in enumerate(zip(wherever(name, lambda: ours(name)), ligers(), strict=True)):
        absolute = (mine - theirs).abs().max().item()
        relative = absolute / theirs.abs().max().item()
        print(f"{place} absolute {absolute:.1e} relative {relative:.1e}")
        assert relative < 5e-6, place

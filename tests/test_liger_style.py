"""The torch reference in Liger's style against Liger's Triton kernels in the interpreter (extra `peers`).

Logits are large, so that Sinkhorn has not converged: the order of its steps, their number and the places of
its epsilon show. So does the transpose at n = 2, where a converged matrix is symmetric.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from interpreted import interpreted
from torch import Tensor

from mhc_bench.bench import liger_style, ops
from mhc_bench.bench.peers import PEERS
from mhc_bench.bench.problems import Data, Problem

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed"
)
SINKHORN = liger_style.sinkhorn
WIDTH, TOKENS, RMS_EPSILON = 16, 3, 0.05
NAMES = "pre", "post", "res", "hidden", "written", "d stream", "d phi", "d bias", "d alpha"


class Case(NamedTuple):
    n: int
    iterations: int = 20
    epsilon: float = 1e-6
    """Sinkhorn's."""
    dtype: torch.dtype = torch.float32


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def operands(case: Case) -> list[Tensor]:
    """Stream [1, T, n, C], phi [n*C, K], bias [K] and alpha [3]."""
    rows, columns = case.n * WIDTH, 2 * case.n + case.n**2
    made = (
        drawn(1, TOKENS, case.n, WIDTH, seed=0).to(case.dtype),
        drawn(rows, columns, seed=1) / rows**0.5,
        drawn(columns, seed=2),
        torch.tensor([0.9, -0.7, 5.0]),
    )
    return [each.requires_grad_() for each in made]


def with_gradients(given: list[Tensor], results: list[Tensor]) -> dict[str, Tensor]:
    """The results, and the gradient that a fixed loss gives to every operand."""
    total = torch.stack(
        [(each * drawn(*each.shape, seed=10 + place)).sum() for place, each in enumerate(results)]
    ).sum()
    found = (*results, *torch.autograd.grad(total, given))
    return dict(zip(NAMES, (each.detach() for each in found), strict=True))


@functools.cache
def ligers(case: Case) -> dict[str, Tensor]:
    def work() -> dict[str, Tensor]:
        from liger_kernel.transformers import functional as liger

        given = operands(case)
        stream, phi, bias, alpha = given
        pre, post, res = liger.liger_mhc_coeffs(
            stream,
            phi,
            bias,
            *alpha.unbind(),
            allow_fp32=True,
            tmax=case.iterations,
            rms_eps=RMS_EPSILON,
            sinkhorn_eps=case.epsilon,
        )
        hidden = liger.liger_mhc_pre(stream, pre)
        written = liger.liger_mhc_post_res(stream, torch.tanh(hidden), post, res)
        return with_gradients(given, [pre, post, res, hidden, written])

    found: dict[str, Tensor] = interpreted(work)
    return found


def styles(case: Case) -> dict[str, Tensor]:
    given = operands(case)
    pre, post, res = liger_style.coefficients(
        *given, iterations=case.iterations, rms_epsilon=RMS_EPSILON, sinkhorn_epsilon=case.epsilon
    )
    hidden = liger_style.aggregate(given[0], pre)
    written = liger_style.write(given[0], torch.tanh(hidden), post, res)
    return with_gradients(given, [pre, post, res, hidden, written])


def differences(case: Case) -> dict[str, float]:
    """The largest difference of each over its largest entry."""
    mine, theirs = styles(case), ligers(case)
    assert {name: each.dtype for name, each in mine.items()} == {n: each.dtype for n, each in theirs.items()}
    return {
        name: ((mine[name] - theirs[name]).abs().max() / theirs[name].abs().max()).item() for name in NAMES
    }


@pytest.mark.parametrize("case", [Case(2), Case(4), Case(4, iterations=2, epsilon=1e-2)])
def test_values_and_gradients_are_ligers(case: Case) -> None:
    found = differences(case)
    print({name: f"{each:.1e}" for name, each in found.items()})
    assert max(found.values()) < 1e-5, found


def test_values_and_gradients_of_bf16_streams_are_ligers_to_its_rounding() -> None:
    found = differences(Case(4, dtype=torch.bfloat16))
    print({name: f"{each:.1e}" for name, each in found.items()})
    assert max(found.values()) < 1e-2, found
    assert max(found[name] for name in ("pre", "post", "res")) < 1e-5, found


def other_order(logits: Tensor, iterations: int, epsilon: float) -> Tensor:
    """Columns first and rows last."""
    return SINKHORN(logits.mT, iterations, epsilon).mT


def transposed(logits: Tensor, iterations: int, epsilon: float) -> Tensor:
    """H_res as [in, out]."""
    return SINKHORN(logits, iterations, epsilon).mT


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("wrong", [other_order, transposed])
def test_another_order_or_the_transpose_would_show(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Tensor, int, float], Tensor], n: int
) -> None:
    monkeypatch.setattr(liger_style, "sinkhorn", wrong)
    found = differences(Case(n))
    print({name: f"{each:.1e}" for name, each in found.items()})
    assert min(each for name, each in found.items() if name not in ("pre", "post", "hidden")) > 1e-3, found


def test_the_bench_gives_both_the_same_operands() -> None:
    problems = [
        Problem(operation, "mhc", TOKENS, WIDTH, 4, torch.float32, torch.device("cpu"))
        for operation in ("aggregate", "read", "write", "site")
    ]

    def results(name: str) -> list[list[Tensor]]:
        return [ops._results(PEERS[name].trial(each, Data(each)), each, Data(each)) for each in problems]

    for mine, theirs in zip(results("liger-style"), interpreted(lambda: results("liger")), strict=True):
        assert ops._difference(mine, theirs) < 1e-5

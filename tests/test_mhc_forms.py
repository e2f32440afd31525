"""mHC's other forms: start values of other codes, an additive epsilon, maps in bf16, other reductions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from residual_toys import WIDTH, connection, hidden
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.residual import build
from mhc_bench.residual.mhc import sinkhorn_with_epsilon

EPSILON = 2**-7


def mhc(**options: Any) -> Any:
    return connection("mhc", index=3, **options)


def stream_of(made: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """Streams that are no copies of one another [B, T, n, C]."""
    stream: Tensor = made.expand(hidden(dtype=dtype))
    return stream + torch.randn(stream.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def loop_with_epsilon(logits: list[list[float]], rounds: int, epsilon: float) -> list[list[float]]:
    """DeepSeek-V4's Sinkhorn entry by entry: rows indexed by out, columns by in."""
    n = len(logits)
    grown = torch.tensor(logits, dtype=torch.float64).exp().tolist()
    columns = [sum(grown[i][j] for i in range(n)) for j in range(n)]
    matrix = [[grown[i][j] / columns[j] + epsilon for j in range(n)] for i in range(n)]
    for number in range(rounds):
        if number:
            columns = [sum(matrix[i][j] for i in range(n)) + epsilon for j in range(n)]
            matrix = [[matrix[i][j] / columns[j] for j in range(n)] for i in range(n)]
        rows = [sum(row) + epsilon for row in matrix]
        matrix = [[value / rows[i] for value in matrix[i]] for i in range(n)]
    return matrix


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("epsilon", [0.0, EPSILON])
@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4), (2, 5, 3, 3)])
def test_sinkhorn_with_an_epsilon_is_the_loop(shape: tuple[int, ...], epsilon: float, rounds: int) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = sinkhorn_with_epsilon(logits, rounds, epsilon).reshape(-1, *shape[-2:])
    expected = [loop_with_epsilon(each.tolist(), rounds, epsilon) for each in logits.reshape(-1, *shape[-2:])]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("order", ["columns_rows", "rows_columns"])
def test_without_an_epsilon_h_res_is_the_oracles(order: str) -> None:
    made = mhc(sinkhorn_order=order)
    logits = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    square = logits.view(5, 4, 4)
    expected = (
        reference.sinkhorn(square, 20) if order == "columns_rows" else reference.sinkhorn(square.mT, 20).mT
    )
    found = made.mixing(logits)
    assert torch.equal(found, expected) and found.is_contiguous()


def test_in_bf16_every_iterate_is_rounded() -> None:
    made = mhc(map_precision="bf16").float()
    stream = stream_of(made, torch.float32)
    phi = torch.cat(made.own("phi")).bfloat16().float()
    read = reference.project(stream, phi, made.epsilon).bfloat16().float()
    alphas, biases = made.own("alpha"), made.own("bias")
    pre, post, res = (
        (alpha * part + bias).bfloat16()
        for alpha, part, bias in zip(alphas, read.split([4, 4, 16], dim=-1), biases, strict=True)
    )
    matrix = torch.softmax(res.unflatten(-1, (4, 4)), dim=-2)
    for number in range(20):
        matrix = matrix / matrix.sum(-2, keepdim=True) if number else matrix
        matrix = matrix / matrix.sum(-1, keepdim=True)
    assert matrix.dtype == torch.bfloat16
    found = made.maps(stream)
    for each, expected in zip(found, (torch.sigmoid(pre), 2 * torch.sigmoid(post), matrix), strict=True):
        assert torch.equal(each, expected.float())


def test_the_learned_head_weighs_streams_by_a_sigmoid_and_the_epsilon() -> None:
    made = mhc(reduction="learned", additive_epsilon=EPSILON)
    stream = stream_of(made)
    with torch.no_grad():
        made.head_alpha.zero_()
        made.head_bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    weights = torch.sigmoid(made.head_bias) + EPSILON
    torch.testing.assert_close(made.collapse(stream), (weights[:, None] * stream).sum(-2))


def test_the_mean_is_over_streams_whatever_lies_ahead_of_them() -> None:
    made = mhc(reduction="mean")
    stream = stream_of(made)
    for shape in (stream.shape, (-1, 4, WIDTH), (1, *stream.shape)):
        reshaped = stream.reshape(shape)
        expected = sum(reshaped[..., k, :] for k in range(4)) / 4
        torch.testing.assert_close(made.collapse(reshaped), expected)


@pytest.mark.parametrize(
    ("initialisation", "std"),
    [("near_identity", 1 / 32), ("uniform", 1 / 32), ("deepseek_v4", 0.02), ("mhc_lite", 0.0)],
)
def test_projections_start_as_in_the_code_that_an_initialisation_is_named_after(
    initialisation: str, std: float
) -> None:
    made: Any = build("mhc", width=256, depth=2, index=1, initialisation=initialisation, reduction="learned")
    for phi in (*made.own("phi"), made.head_phi):
        assert float(phi.detach().std()) == pytest.approx(std, rel=0.05)


def test_biases_start_as_in_the_code_that_an_initialisation_is_named_after() -> None:
    for initialisation in ("uniform", "deepseek_v4"):
        made: Any = build("mhc", width=8, depth=2, index=1, initialisation=initialisation)
        assert not any(bias.any() for bias in made.own("bias"))
    made = build("mhc", width=8, depth=2, index=1, initialisation="mhc_lite")
    pre, post, res = (bias.tolist() for bias in made.own("bias"))
    assert pre == post == [-1.0, 1.0, -1.0, -1.0]
    assert res == [0.0 if i == j else -8.0 for i in range(4) for j in range(4)]


@pytest.mark.parametrize("initialisation", ["near_identity", "uniform", "deepseek_v4", "mhc_lite"])
def test_a_diagonal_offset_takes_the_place_of_h_res_start_alone(initialisation: str) -> None:
    plain: Any = build("mhc", width=8, depth=2, index=1, initialisation=initialisation)
    made: Any = build("mhc", width=8, depth=2, index=1, initialisation=initialisation, diagonal_offset=3.0)
    res = made.bias_res.detach().view(4, 4)
    assert torch.equal(res, 1.5 * (2 * torch.eye(4) - 1))
    assert torch.equal(made.bias_pre, plain.bias_pre) and torch.equal(made.bias_post, plain.bias_post)


def test_one_stream_is_written_to_with_weight_one() -> None:
    made: Any = build("mhc", width=8, depth=2, index=1, streams=1)
    assert made.bias_post.tolist() == [0.0]

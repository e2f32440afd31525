"""mHC against Eq. 3 and 7-9 of arXiv 2512.24880, written as loops, and what its start values promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from residual_toys import WIDTH, chain, connection, fixed_sublayer, hidden, run
from test_ops_sinkhorn import loop_oracle
from torch import Tensor

from mhc_bench.residual import ResidualConnection, build
from mhc_bench.residual.measures import stream_cosine


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def loop_maps(each: torch.nn.Module, token: Tensor, rounds: int) -> tuple[list[float], list[float], Any]:
    """pre, post and res of one token [n, C]: one norm over n*C, three affine maps, their constraints."""
    n = token.shape[0]
    vector = [float(value) for value in token.flatten()]
    rms = math.sqrt(sum(value * value for value in vector) / len(vector) + 1e-6)
    own = dict(each.named_parameters())
    logits = {
        name: [
            float(own[f"alpha_{name}"][0]) * sum(v / rms * float(p) for v, p in zip(vector, row, strict=True))
            + float(own[f"bias_{name}"][k])
            for k, row in enumerate(own[f"phi_{name}"])
        ]
        for name in ("pre", "post", "res")
    }
    matrix = loop_oracle([logits["res"][i * n : (i + 1) * n] for i in range(n)], rounds)
    return [sigmoid(v) for v in logits["pre"]], [2 * sigmoid(v) for v in logits["post"]], matrix


@torch.no_grad()
@pytest.mark.parametrize(("n", "rounds"), [(1, 20), (2, 3), (4, 1), (4, 20)])
def test_maps_and_update_equal_the_loops(n: int, rounds: int) -> None:
    each = connection("mhc", streams=n, sinkhorn_iterations=rounds)
    stream = torch.randn(2, 2, n, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    update = hidden(time=2)
    read, carry = each.read(stream)
    written = each.write(stream, update, carry)
    for b in range(2):
        for t in range(2):
            x = stream[b, t]
            pre, post, res = loop_maps(each, x, rounds)
            torch.testing.assert_close(read[b, t], sum(pre[j] * x[j] for j in range(n)))
            expected = [sum(res[i][j] * x[j] for j in range(n)) + post[i] * update[b, t] for i in range(n)]
            torch.testing.assert_close(written[b, t], torch.stack(expected))


@torch.no_grad()
def test_a_transposed_mixing_matrix_would_be_seen() -> None:
    each = connection("mhc")
    stream = torch.randn(1, 1, 4, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    maps = each.maps(stream)
    assert maps is not None
    res = torch.tensor(loop_maps(each, stream[0, 0], 20)[2]).double()
    torch.testing.assert_close(maps.res[0, 0], res)
    assert (maps.res[0, 0] - res.T).abs().max() > 0.02


@torch.no_grad()
def test_one_stream_is_kept_as_it_is() -> None:
    each = connection("mhc", streams=1)
    maps = each.maps(torch.randn(2, 3, 1, WIDTH).double())
    assert maps is not None and torch.equal(maps.res, torch.ones_like(maps.res))


@torch.no_grad()
@pytest.mark.parametrize("n", [2, 4, 6])
def test_the_default_start_is_what_its_description_says(n: int) -> None:
    for index in (0, 1, n + 1):
        each = build("mhc", width=64, depth=2 * n, index=index, streams=n).double()
        for gate in each.gate_parameters():
            each.get_parameter(gate).zero_()
        maps = each.maps(torch.randn(1, 1, n, 64).double())
        assert maps is not None
        pre, post, res = (each[0, 0] for each in maps)
        own = index % n
        off = [j for j in range(n) if j != own]
        torch.testing.assert_close(pre[own].item(), sigmoid(1.0))
        torch.testing.assert_close(pre[off].tolist(), [sigmoid(-1.0)] * (n - 1))
        torch.testing.assert_close(post[own].item(), 2 * sigmoid(1.0))
        torch.testing.assert_close(post.mean().item(), 1.0)
        torch.testing.assert_close(res.diagonal().tolist(), [sigmoid(2 - math.log(n - 1))] * n)


@torch.no_grad()
def test_uniform_starts_with_equal_weights_and_plain_writes() -> None:
    each = build("mhc", width=16, depth=4, index=1, initialisation="uniform").double()
    for gate in each.gate_parameters():
        each.get_parameter(gate).zero_()
    maps = each.maps(torch.randn(1, 1, 4, 16).double())
    assert maps is not None
    for found, value in zip(maps, (0.5, 1.0, 0.25), strict=True):
        torch.testing.assert_close(found, torch.full_like(found, value))


@torch.no_grad()
def test_the_dynamic_part_of_a_logit_starts_at_the_size_of_its_gate() -> None:
    for width in (16, 256):
        each = build("mhc", width=width, depth=4, index=1)
        logit = torch.randn(2000, 4 * width) @ each.get_parameter("phi_res").T
        assert 0.8 < logit.std() < 1.2


@torch.no_grad()
@pytest.mark.parametrize("initialisation", ["near_identity", "uniform"])
def test_the_streams_differ_after_the_second_sublayer_at_the_start(initialisation: str) -> None:
    stream = hidden().unsqueeze(-2).expand(-1, -1, 4, -1)
    for index in range(2):
        each = build("mhc", width=WIDTH, depth=4, index=index, initialisation=initialisation).double()
        assert index or stream_cosine(stream).min() > 1 - 1e-12
        read, carry = each.read(stream.contiguous())
        stream = each.write(stream, fixed_sublayer(index, read), carry)
    ceiling = {"near_identity": 1 - 1e-3, "uniform": 1 - 1e-8}
    assert stream_cosine(stream).mean() < ceiling[initialisation]


def mixing(connections: list[ResidualConnection]) -> Tensor:
    """Mean H_res of each sublayer on fixed streams [L, n, n]."""
    stream = torch.randn(1, 8, 4, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    found = [each.maps(stream) for each in connections]
    return torch.stack([maps.res.mean((0, 1)) for maps in found if maps is not None]).detach()


def test_mixing_moves_in_a_short_run() -> None:
    """Twenty AdamW steps at 4e-3 towards a fixed target move H_res wherever it is not inert."""
    connections = [build("mhc", width=WIDTH, depth=4, index=index).double() for index in range(4)]
    before = mixing(connections)
    optimizer = torch.optim.AdamW([p for each in connections for p in each.parameters()], lr=4e-3)
    target = hidden(seed=5).roll(1, -1)
    for _ in range(20):
        optimizer.zero_grad()
        (run(connections, hidden()) - target).square().mean().backward()
        optimizer.step()
    moved = (mixing(connections) - before).abs().amax((1, 2))
    assert moved[1:3].min() > 5e-3


def test_the_last_sublayers_mixing_has_only_the_columns_error_to_learn_from() -> None:
    connections = chain("mhc")
    run(connections, hidden()).square().sum().backward()
    largest = [float(each.get_parameter("bias_res").grad.abs().max()) for each in connections]  # type: ignore[union-attr]
    assert 0 < largest[3] < largest[2] / 10


def test_the_parameter_count_is_the_papers() -> None:
    each = build("mhc", width=128, depth=8, index=3)
    assert sum(p.numel() for p in each.parameters()) == (16 + 8) * (4 * 128 + 1) + 3


def test_parameters_stay_fp32_in_a_model_of_lower_precision() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        each = build("mhc", width=8, depth=4, index=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in each.parameters()} == {torch.float32}


@torch.no_grad()
def test_rows_first_is_the_loop_on_the_transposed_logits() -> None:
    each = connection("mhc", sinkhorn_order="rows_columns", sinkhorn_iterations=3)
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.tensor(loop_oracle(logits.T.tolist(), 3)).double().T
    torch.testing.assert_close(each.mixing(logits.flatten()), expected)
    torch.testing.assert_close(expected.sum(0), torch.ones(4).double())
    assert (expected - torch.tensor(loop_oracle(logits.tolist(), 3)).double()).abs().max() > 1e-3


@torch.no_grad()
def test_the_streams_are_reduced_by_sum_mean_or_learned_weights() -> None:
    stream = torch.randn(2, 3, 4, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    mean, learned = (connection("mhc", index=3, reduction=rule) for rule in ("mean", "learned"))
    torch.testing.assert_close(mean.collapse(stream), connection("mhc", index=3).collapse(stream) / 4)
    token, own = stream[1, 2], dict(learned.named_parameters())
    rms = math.sqrt(float(token.square().mean()) + 1e-6)
    logits = own["head_alpha"] * (own["head_phi"] @ token.flatten() / rms) + own["head_bias"]
    expected = sum(sigmoid(float(logits[j])) * token[j] for j in range(4))
    torch.testing.assert_close(learned.collapse(stream)[1, 2], expected)
    assert "head_phi" not in dict(connection("mhc", index=2, reduction="learned").named_parameters())

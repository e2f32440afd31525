"""Hyper-Connections against the paper's formulas, written as loops over tokens, streams and entries."""

from __future__ import annotations

import math

import pytest
import torch
from residual_toys import WIDTH, connection, hidden, run
from torch import Tensor

from mhc_bench.residual import build


def loop_maps(each: torch.nn.Module, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pre, post and res of one token [n, C], from A_m, B and A_r of arXiv 2409.19606 (res is A_r^T)."""
    n, width = token.shape
    own = dict(each.named_parameters())
    a_m, b = own["static_pre"].clone(), own["static_post"].clone()
    a_r = own["static_res"].T.clone()
    for j in range(n):
        normal = token[j] / math.sqrt(sum(float(value) ** 2 for value in token[j]) / width + 1e-6)
        a_m[j] += own["scale_mix"][0] * math.tanh(float(normal @ own["weight"][0]))
        b[j] += own["scale_write"][0] * math.tanh(float(normal @ own["weight"][1]))
        for i in range(n):
            a_r[j, i] += own["scale_mix"][0] * math.tanh(float(normal @ own["weight"][2 + i]))
    return a_m, b, a_r.T


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 4])
def test_maps_and_update_equal_the_loops(n: int) -> None:
    each = connection("hc", streams=n)
    stream = torch.randn(2, 3, n, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    update = hidden(time=3)
    read, carry = each.read(stream)
    written = each.write(stream, update, carry)
    for b in range(2):
        for t in range(3):
            x = stream[b, t]
            pre, post, res = loop_maps(each, x)
            torch.testing.assert_close(read[b, t], sum(pre[j] * x[j] for j in range(n)))
            # the paper's width and depth connection: B^T F + A_r^T X
            expected = [sum(res.T[j, i] * x[j] for j in range(n)) + post[i] * update[b, t] for i in range(n)]
            torch.testing.assert_close(written[b, t], torch.stack(expected))


@torch.no_grad()
def test_a_transposed_mixing_matrix_would_be_seen() -> None:
    each = connection("hc")
    stream = torch.randn(1, 1, 4, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    maps = each.maps(stream)
    assert maps is not None
    _, _, res = loop_maps(each, stream[0, 0])
    torch.testing.assert_close(maps.res[0, 0], res)
    assert (maps.res[0, 0] - res.T).abs().max() > 0.1


@torch.no_grad()
def test_starts_as_the_plain_residual_in_every_sublayer() -> None:
    start = hidden()
    connections = [build("hc", width=WIDTH, depth=6, index=index).double() for index in range(6)]
    plain = [build("baseline", width=WIDTH, depth=6, index=index) for index in range(6)]
    torch.testing.assert_close(run(connections, start), 4 * run(plain, start), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_each_sublayer_first_reads_its_own_stream() -> None:
    stream = torch.randn(1, 1, 3, WIDTH).double()
    for index in range(6):
        read, _ = build("hc", width=WIDTH, depth=6, index=index, streams=3).double().read(stream)
        torch.testing.assert_close(read[0, 0], stream[0, 0, index % 3])


def test_the_streams_part_with_the_first_optimizer_step() -> None:
    connections = [build("hc", width=WIDTH, depth=4, index=index).double() for index in range(4)]
    parameters = [p for each in connections for p in each.parameters()]
    run(connections, hidden()).square().sum().backward()
    torch.optim.SGD(parameters, lr=1e-3).step()
    stream = connections[0].expand(hidden())
    for each in connections:
        read, carry = each.read(stream)
        stream = each.write(stream, torch.tanh(read), carry)
    assert (stream[..., 0, :] - stream[..., 1, :]).abs().max() > 1e-6


def test_the_parameter_count_is_the_papers() -> None:
    each = build("hc", width=128, depth=8, index=3)
    assert sum(p.numel() for p in each.parameters()) == 128 * (4 + 2) + 4 * (4 + 2) + 2


def test_the_dynamic_weights_of_parts_of_hc_start_with_variance_one_over_the_width() -> None:
    made = build("hc-components", width=4096, depth=2, index=1, components="pre+post+res")
    for which in ("pre", "post", "res"):
        weight = getattr(made, f"weight_{which}").detach()
        assert float(weight.std()) == pytest.approx(1 / 64, rel=0.05)

"""Variants that keep earlier activations, or no streams, against loops in float64 from their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from residual_toys import WIDTH, chain, connection, fixed_sublayer, hidden, run
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.residual import build

DEPTH = 8


def sources_mean(query: Tensor, sources: list[Tensor]) -> Tensor:
    """Softmax-weighted mean of the vectors, each scored after its own RMS norm."""
    scores = []
    for source in sources:
        rms = math.sqrt(sum(float(v) ** 2 for v in source) / len(source) + 1e-6)
        scores.append(math.exp(sum(float(q) * float(v) / rms for q, v in zip(query, source, strict=True))))
    return sum(score / sum(scores) * source for score, source in zip(scores, sources, strict=True))  # type: ignore[return-value]


def attnres_loop(connections: list[Any], start: Tensor, block: int) -> Tensor:
    """[T, C]: token by token, `block` sublayers to a source; the sublayer must not look at other tokens."""
    results = []
    for token in start:
        sources = [token]
        for index, each in enumerate(connections):
            output = pointwise(index, sources_mean(each.query, sources))
            if index % block == 0:
                sources.append(output)
            else:
                sources[-1] = sources[-1] + output
        results.append(sources_mean(connections[-1].final_query, sources))
    return torch.stack(results)


def pointwise(index: int, value: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.tanh(value @ torch.randn(WIDTH, WIDTH, generator=generator).to(value))


def run_pointwise(connections: list[Any], start: Tensor) -> Tensor:
    stream = connections[0].expand(start)
    for index, each in enumerate(connections):
        read, carry = each.read(stream)
        stream = each.write(stream, pointwise(index, read), carry)
    return connections[-1].collapse(stream)  # type: ignore[no-any-return]


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "sublayers"), [(0, 1), (2, 4), (3, 4), (4, 2)])
def test_attention_residuals_equal_the_loops(blocks: int, sublayers: int) -> None:
    connections, start = chain("attnres", depth=DEPTH, blocks=blocks), hidden(batch=1, time=3)
    expected = attnres_loop(connections, start[0], sublayers)
    torch.testing.assert_close(run_pointwise(connections, start)[0], expected)


@torch.no_grad()
def test_attention_residuals_start_as_plain_means() -> None:
    connections = [build("attnres", width=WIDTH, depth=4, index=index).double() for index in range(4)]
    start = hidden()
    sources = [start]
    for index in range(4):
        sources.append(pointwise(index, torch.stack(sources).mean(0)))
    torch.testing.assert_close(run_pointwise(connections, start), torch.stack(sources).mean(0))


@torch.no_grad()
@pytest.mark.parametrize(("dilation", "period"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_denseformer_equals_the_loops(dilation: int, period: int) -> None:
    connections = chain("denseformer", depth=DEPTH, dilation=dilation, period=period)
    state = start = hidden()
    outputs = [start]
    for layer in range(1, DEPTH // 2 + 1):
        for index in (2 * layer - 2, 2 * layer - 1):
            state = state + pointwise(index, state)
        outputs.append(state)
        if layer % period == 0:
            sources = [outputs[j] for j in range(layer + 1) if j % dilation == layer % dilation]
            weights = connections[2 * layer - 1].get_parameter("weight")
            assert len(weights) == len(sources)
            state = sum(weight * source for weight, source in zip(weights, sources, strict=True))  # type: ignore[assignment]
    torch.testing.assert_close(run_pointwise(connections, start), state)


@torch.no_grad()
def test_cheap_skip_adds_one_kept_state_back_once() -> None:
    connections = chain("cheap-skip", depth=DEPTH)
    state = start = hidden()
    for index in range(DEPTH):
        if index == 2:
            kept = state
        state = state + pointwise(index, state)
        if index == 6:
            state = state + connections[6].get_parameter("weight") * kept
    torch.testing.assert_close(run_pointwise(connections, start), state)
    assert sum(p.numel() for each in connections for p in each.parameters()) == 1


@torch.no_grad()
@pytest.mark.parametrize("form", ["rw", "lr", "rw+lr"])
def test_laurel_equals_the_loops(form: str) -> None:
    each, x, update = connection("laurel", form=form), hidden(), hidden(seed=1)
    own = dict(each.named_parameters())
    alpha, beta = (own.get(name, torch.ones(1)).double() for name in ("alpha", "beta"))
    mapped = torch.zeros_like(x)
    if "lr" in form:
        for c in range(WIDTH):
            for r in range(4):
                mapped[..., c] += own["up"][c, r] * sum(own["down"][r, j] * x[..., j] for j in range(WIDTH))
    read, carry = each.read(x)
    assert torch.equal(read, x)
    torch.testing.assert_close(each.write(x, update, carry), alpha * update + beta * (x + mapped))
    assert ("alpha" in own, "up" in own) == ("rw" in form, "lr" in form)


@torch.no_grad()
def test_laurels_upward_map_starts_with_orthonormal_columns() -> None:
    up = build("laurel", width=64, depth=4, index=1, rank=5).get_parameter("up")
    torch.testing.assert_close(up.T @ up, torch.eye(5), rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_delta_learning_equals_the_loops(channels: int) -> None:
    each = connection("ddl", value_channels=channels)
    state = torch.randn(1, 2, channels, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    update, own = hidden(batch=1, time=2), dict(each.named_parameters())
    read, carry = each.read(state)
    written = each.write(state, update, carry)
    for t in range(2):
        x, f = state[0, t], update[0, t]
        h = sum(own["read_weight"][c] * x[c] for c in range(channels))
        rms = math.sqrt(sum(float(v) ** 2 for v in h) / WIDTH + 1e-6)  # type: ignore[union-attr]
        beta = 2 * sigmoid(float(own["weight_beta"][0] @ h) / rms + float(own["bias_beta"][0]))  # type: ignore[operator]
        k = f / math.sqrt(sum(float(v) ** 2 for v in f) + WIDTH * 1e-6)
        torch.testing.assert_close(read[0, t], h)
        for c in range(channels):
            v = 4 * sigmoid(float(own["weight_value"][c] @ h) + float(own["bias_value"][c]))  # type: ignore[operator]
            torch.testing.assert_close(written[0, t, c], x[c] + beta * k * (v - float(k @ x[c])))


@torch.no_grad()
def test_deep_delta_learning_replaces_at_a_gate_of_one() -> None:
    """k^T X' = v^T: what the state held along the output's direction is gone."""
    each = build("ddl", width=WIDTH, depth=4, index=1).double()
    each.get_parameter("weight_beta").zero_()
    state, update = torch.randn(1, 2, 4, WIDTH).double(), 100 * hidden(batch=1, time=2)
    _, carry = each.read(state)
    direction = (update / update.norm(dim=-1, keepdim=True)).unsqueeze(-2)
    held = (each.write(state, update, carry) * direction).sum(-1)
    torch.testing.assert_close(held, carry[1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("m", [1, 3, 4])
def test_frac_connections_equal_the_loops(m: int) -> None:
    each, x, update = (
        connection("frac", fractions=m),
        hidden(batch=1, time=2),
        hidden(batch=1, time=2, seed=1),
    )
    read, carry = each.read(x)
    written = each.write(x, update, carry)
    own, size = dict(each.named_parameters()), WIDTH // m
    for t in range(2):
        parts, outputs = x[0, t].view(m, size), update[0, t].view(m, size)
        y, a, b = own["static_read"].T.clone(), own["static_res"].T.clone(), own["static_post"].clone()
        for j in range(m):
            mean = sum(float(v) for v in parts[j]) / size
            variance = sum((float(v) - mean) ** 2 for v in parts[j]) / size
            normal = (parts[j] - mean) / math.sqrt(variance + 1e-6)
            for i in range(m):
                y[j, i] += own["scale_mix"][0] * math.tanh(float(normal @ own["weight"][i]))
                a[j, i] += own["scale_mix"][0] * math.tanh(float(normal @ own["weight"][m + i]))
            b[j] += own["scale_write"][0] * math.tanh(float(normal @ own["weight"][2 * m]))
        expected = [sum(y[j, i] * parts[j] for j in range(m)) for i in range(m)]
        torch.testing.assert_close(read[0, t], torch.cat(expected))  # type: ignore[arg-type]
        expected = [sum(a[j, i] * parts[j] for j in range(m)) + b[i] * outputs[i] for i in range(m)]
        torch.testing.assert_close(written[0, t], torch.cat(expected))  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("name", ["denseformer", "cheap-skip", "laurel", "frac"])
def test_starts_as_the_plain_residual(name: str) -> None:
    connections = [build(name, width=WIDTH, depth=DEPTH, index=index).double() for index in range(DEPTH)]
    plain = [build("baseline", width=WIDTH, depth=DEPTH, index=index) for index in range(DEPTH)]
    torch.testing.assert_close(run(connections, hidden()), run(plain, hidden()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["attnres", "denseformer", "cheap-skip", "laurel", "ddl", "frac"])
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    connections = torch.nn.ModuleList(chain(name))
    names = [own for own, _ in connections.named_parameters()]

    def whole(start: Tensor, *values: Tensor) -> Tensor:
        given = {f"layers.{own}": value for own, value in zip(names, values, strict=True)}
        return torch.func.functional_call(_Chain(connections), given, (start,))  # type: ignore[no-any-return]

    start = hidden(batch=1, time=2).requires_grad_()
    assert torch.autograd.gradcheck(whole, (start, *connections.parameters()), fast_mode=True)


class _Chain(torch.nn.Module):
    def __init__(self, layers: torch.nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, start: Tensor) -> Tensor:
        stream = self.layers[0].expand(start)  # type: ignore[operator]
        for index, each in enumerate(self.layers):
            read, carry = each.read(stream)  # type: ignore[operator]
            stream = each.write(stream, fixed_sublayer(index, read), carry)  # type: ignore[operator]
        return self.layers[-1].collapse(stream)  # type: ignore[operator,no-any-return]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("attnres", {"blocks": -1}, "blocks -1: expected"),
        ("denseformer", {"period": 0}, "period 0: expected a whole number from 1"),
        ("cheap-skip", {"source": 0.8}, "source 0.8, target 0.75: expected 0 <= source < target"),
        ("cheap-skip", {"target": 1.5}, "target 1.5: expected more than 0 and at most 1"),
        ("laurel", {"rank": 99}, "rank 99: expected at most the width 12"),
        ("laurel", {"form": "pa"}, "form 'pa'"),
        ("ddl", {"value_channels": 0}, "value_channels 0"),
        ("frac", {"fractions": 5}, "fractions 5: expected a divisor of the width 12"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, width=WIDTH, depth=4, index=1, **options)


def test_deep_delta_learning_starts_at_the_mean_of_its_channels_with_the_projections_of_the_code() -> None:
    made: Any = build("ddl", width=4096, depth=2, index=1, value_channels=8)
    for weight in (made.weight_beta.detach(), made.weight_value.detach()):
        assert float(weight.std()) == pytest.approx(0.5 / 64, rel=0.05)
        assert abs(float(weight.mean())) < 5 * 0.5 / 64 / weight.numel() ** 0.5
    for read in (made.read_weight, made.final_read_weight):
        assert torch.equal(read, torch.full((8,), 1 / 8))
    assert not made.bias_beta.any() and not made.bias_value.any()


@pytest.mark.parametrize(
    ("source", "target", "keeps", "adds"),
    [(0.25, 0.75, 1, 3), (0.0, 0.5, 0, 2), (0.25, 1.0, 1, 3), (0.0, 1.0, 0, 3), (0.25, 0.3, None, None)],
)
def test_a_cheap_skip_keeps_one_stream_and_adds_it_once_or_does_nothing(
    source: float, target: float, keeps: int | None, adds: int | None
) -> None:
    made: list[Any] = [
        build("cheap-skip", width=WIDTH, depth=4, index=index, source=source, target=target)
        for index in range(4)
    ]
    stream = made[0].expand(hidden(dtype=torch.float32))
    for index, each in enumerate(made):
        assert (each.keeps, each.adds) == (index == keeps, index == adds)
        assert len(list(each.parameters())) == (index == adds)
        stream = each.write(stream, hidden(seed=index, dtype=torch.float32), ())
        within = keeps is not None and adds is not None and keeps <= index < adds
        assert stream.shape[-2] == (2 if within else 1)


def test_laurels_rank_goes_from_one_to_the_width() -> None:
    for rank in (1, 8):
        assert build("laurel", width=8, depth=2, index=1, rank=rank).up.shape == (8, rank)
    for rank, said in ((0, "from 1"), (9, "at most the width 8")):
        with pytest.raises(UsageError, match=f"rank {rank}: expected .*{said}"):
            build("laurel", width=8, depth=2, index=1, rank=rank)


def test_a_cheap_skip_to_its_own_source_is_refused() -> None:
    with pytest.raises(UsageError, match=r"source 0.5, target 0.5: expected 0 <= source < target <= 1"):
        build("cheap-skip", width=8, depth=4, index=1, source=0.5, target=0.5)


@pytest.mark.parametrize(("depth", "blocks", "sublayers"), [(6, 2, 4), (6, 3, 2), (8, 2, 4), (6, 0, 1)])
def test_a_block_of_attention_residuals_is_of_whole_layers_and_the_last_may_be_shorter(
    depth: int, blocks: int, sublayers: int
) -> None:
    made: Any = build("attnres", width=8, depth=depth, index=0, blocks=blocks)
    assert made.block_sublayers == sublayers

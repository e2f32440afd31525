"""mHC's relatives against their formulas, written as loops in float64, and what their starts promise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from residual_toys import WIDTH, connection, hidden
from test_ops_sinkhorn import loop_oracle
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.residual import ResidualConnection, build

Matrix = list[list[float]]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def lite(logits: list[float], n: int) -> Matrix:
    matrix = [[0.0] * n for _ in range(n)]
    for weight, order in zip(softmax(logits), itertools.permutations(range(n)), strict=True):
        for out, source in enumerate(order):
            matrix[out][source] += weight
    return matrix


def kronecker_of_two_factors(logits: list[float], n: int) -> Matrix:
    a, b = {4: (2, 2), 6: (2, 3)}[n]
    cut = math.factorial(a)
    left, right = lite(logits[:cut], a), lite(logits[cut:], b)
    return [[left[i // b][j // b] * right[i % b][j % b] for j in range(n)] for i in range(n)]


def unconstrained(logits: list[float], n: int) -> Matrix:
    return [logits[i * n : (i + 1) * n] for i in range(n)]


def identity(logits: list[float], n: int) -> Matrix:
    return [[float(i == j) for j in range(n)] for i in range(n)]


def cayley(logits: list[float], n: int) -> Matrix:
    """Solves (I + A) Q = I - A by elimination."""
    skew, values = [[0.0] * n for _ in range(n)], iter(logits)
    for i, j in itertools.combinations(range(n), 2):
        skew[i][j] = next(values)
        skew[j][i] = -skew[i][j]
    rows = [
        [float(i == j) + skew[i][j] for j in range(n)] + [float(i == j) - skew[i][j] for j in range(n)]
        for i in range(n)
    ]
    for i in range(n):
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(n):
            if k != i:
                rows[k] = [value - rows[k][i] * pivot for value, pivot in zip(rows[k], rows[i], strict=True)]
    return [row[n:] for row in rows]


def spectral(logits: list[float], n: int) -> Matrix:
    """The norm by power iteration; the basis vector k is k ones and then -k, over its length."""
    free = [logits[i * (n - 1) : (i + 1) * (n - 1)] for i in range(n - 1)]
    size = range(n - 1)
    vector = [1.0 + 0.1 * j for j in size]
    for _ in range(500):
        image = [sum(free[i][j] * vector[j] for j in size) for i in size]
        vector = [sum(free[i][j] * image[i] for i in size) for j in size]
        length = math.sqrt(sum(value * value for value in vector))
        vector = [value / length for value in vector]
    norm = math.sqrt(sum(sum(free[i][j] * vector[j] for j in size) ** 2 for i in size))
    basis = []
    for k in range(1, n):
        column = [1.0] * k + [-float(k)] + [0.0] * (n - k - 1)
        length = math.sqrt(sum(value * value for value in column))
        basis.append([value / length for value in column])
    return [
        [
            1 / n + sum(basis[a][i] * free[a][b] * basis[b][j] for a in size for b in size) / max(1.0, norm)
            for j in range(n)
        ]
        for i in range(n)
    ]


ORACLES: dict[str, tuple[Callable[[list[float], int], Matrix], tuple[int, ...]]] = {
    "mhc-identity": (identity, (1, 4)),
    "mhc-lite": (lite, (2, 3, 4)),
    "kromhc": (kronecker_of_two_factors, (4, 6)),
    "mhc-unconstrained": (unconstrained, (1, 3, 4)),
    "mhc-orthogonal": (cayley, (2, 3, 4)),
    "mhc-spectral": (spectral, (2, 3, 4)),
}
CASES = [(name, n) for name, (_, sizes) in ORACLES.items() for n in sizes]


def related(name: str, n: int) -> Any:
    """A connection whose H_res is far from the identity."""
    return connection(name, streams=n, **({"identity_margin": 0.5} if name in ("mhc-lite", "kromhc") else {}))


def loop_logits(each: torch.nn.Module, token: Tensor) -> dict[str, list[float]]:
    """h of each map of one token [n, C]: one norm over n*C and an affine map."""
    vector = [float(value) for value in token.flatten()]
    rms = math.sqrt(sum(value * value for value in vector) / len(vector) + 1e-6)
    own = dict(each.named_parameters())
    return {
        which: [
            float(own[f"alpha_{which}"][0])
            * sum(v / rms * float(p) for v, p in zip(vector, row, strict=True))
            + float(bias)
            for row, bias in zip(own[f"phi_{which}"], own[f"bias_{which}"], strict=True)
        ]
        for which in ("pre", "post", "res")
        if f"phi_{which}" in own
    }


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def streams_of(n: int, *, tokens: int = 2) -> Tensor:
    return torch.randn(1, tokens, n, WIDTH, generator=torch.Generator().manual_seed(1)).double()


def loop_update(x: Tensor, update: Tensor, pre: Any, post: Any, res: Any) -> tuple[Tensor, Tensor]:
    """H_pre x and H_res x + H_post^T F of one token."""
    n = len(pre)
    read = torch.stack([sum(pre[j] * x[j, c] for j in range(n)) for c in range(WIDTH)])  # type: ignore[arg-type]
    written = [sum(res[i][j] * x[j] for j in range(n)) + post[i] * update for i in range(n)]
    return read, torch.stack(written)


@torch.no_grad()
@pytest.mark.parametrize(("name", "n"), CASES)
def test_maps_and_update_equal_the_loops(name: str, n: int) -> None:
    each, stream, update = related(name, n), streams_of(n), hidden(batch=1, time=2)
    read, carry = each.read(stream)
    written = each.write(stream, update, carry)
    for t in range(2):
        logits = loop_logits(each, stream[0, t])
        pre, post = map(sigmoid, logits["pre"]), [2 * sigmoid(value) for value in logits["post"]]
        res = ORACLES[name][0](logits.get("res", []), n)
        expected = loop_update(stream[0, t], update[0, t], list(pre), post, res)
        torch.testing.assert_close(read[0, t], expected[0])
        torch.testing.assert_close(written[0, t], expected[1])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "n"), [("mhc-lite", 4), ("kromhc", 6), ("mhc-orthogonal", 4), ("mhc-spectral", 4)]
)
def test_a_transposed_mixing_matrix_would_be_seen(name: str, n: int) -> None:
    maps = related(name, n).maps(streams_of(n))
    assert (maps.res - maps.res.mT).abs().amax((-1, -2)).min() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("gate", [0.5, 30.0])
@pytest.mark.parametrize(
    ("name", "n"), [("mhc-lite", 4), ("kromhc", 6), ("mhc-spectral", 4), ("mhc-orthogonal", 4)]
)
def test_the_constraint_holds_at_any_size_of_the_logits(name: str, n: int, gate: float) -> None:
    each = related(name, n)
    each.get_parameter("alpha_res").fill_(gate)
    res = each.maps(streams_of(n, tokens=64)).res
    assert torch.linalg.matrix_norm(res, ord=2).max() < 1 + 1e-12
    if name == "mhc-orthogonal":
        torch.testing.assert_close(res @ res.mT, torch.eye(n).double().expand_as(res))
        torch.testing.assert_close(torch.linalg.det(res), torch.ones(1, 64).double())
        return
    torch.testing.assert_close(res.sum(-1), torch.ones(1, 64, n).double())
    torch.testing.assert_close(res.sum(-2), torch.ones(1, 64, n).double())
    assert (res.min() >= 0) == (name != "mhc-spectral")


@pytest.mark.parametrize(("name", "n"), [(name, 3) for name in ORACLES] + [("kromhc", 6)])
def test_derivatives_are_those_of_finite_differences(name: str, n: int) -> None:
    each = related(name, n)
    stream, update = streams_of(n).requires_grad_(), hidden(batch=1, time=2).requires_grad_()
    names = [own for own, _ in each.named_parameters()]

    def step(stream: Tensor, update: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip((f"each.{own}" for own in names), values, strict=True))
        return torch.func.functional_call(_Step(each), given, (stream, update))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(step, (stream, update, *each.parameters()), fast_mode=True)


class _Step(torch.nn.Module):
    def __init__(self, each: ResidualConnection) -> None:
        super().__init__()
        self.each = each

    def forward(self, stream: Tensor, update: Tensor) -> tuple[Tensor, Tensor]:
        read, carry = self.each.read(stream)
        return read, self.each.write(stream, update, carry)


@torch.no_grad()
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("name", ["mhc-identity", "mhc-unconstrained", "mhc-spectral", "mhc-static"])
def test_relatives_start_with_the_maps_of_mhc(name: str, n: int) -> None:
    for index in (0, n + 1):
        found = without_dynamic_part(build(name, width=WIDTH, depth=3 * n, index=index, streams=n))
        expected = without_dynamic_part(build("mhc", width=WIDTH, depth=3 * n, index=index, streams=n))
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])
        mixing = torch.eye(n).double() if name == "mhc-identity" else expected[2]
        torch.testing.assert_close(found[2], mixing)


@torch.no_grad()
@pytest.mark.parametrize(("name", "weight"), [("mhc-lite", 1 / (1 + 23 * math.exp(-8)))])
def test_mhc_lite_starts_at_its_papers_weight_of_the_identity(name: str, weight: float) -> None:
    each = build(name, width=WIDTH, depth=4, index=1)
    start = softmax(each.get_parameter("bias_res").tolist())
    assert start[0] == pytest.approx(weight) and weight == pytest.approx(0.9923, abs=1e-4)
    assert not each.get_parameter("phi_res").any()
    assert (
        each.get_parameter("bias_pre").tolist() == each.get_parameter("bias_post").tolist() == [-1, 1, -1, -1]
    )


@torch.no_grad()
def test_kromhc_starts_near_the_identity_and_rotations_at_it() -> None:
    krom = without_dynamic_part(build("kromhc", width=WIDTH, depth=4, index=1))[2]
    stay = 1 / (1 + math.exp(-8))
    torch.testing.assert_close(krom.diagonal(), torch.full((4,), stay**2).double(), rtol=1e-6, atol=0)
    rotation = without_dynamic_part(build("mhc-orthogonal", width=WIDTH, depth=4, index=1))[2]
    torch.testing.assert_close(rotation, torch.eye(4).double())


def without_dynamic_part(each: ResidualConnection) -> tuple[Tensor, ...]:
    """pre, post and res of one token, the gates at 0."""
    each = each.double()
    for gate in each.gate_parameters():
        each.get_parameter(gate).zero_()
    maps = each.maps(streams_of(each.get_parameter("bias_pre").numel()))
    assert maps is not None
    return tuple(found[0, 0] for found in maps)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("mhc-identity", 8),
        ("mhc-lite", 24 + 8),
        ("kromhc", 4 + 8),
        ("mhc-unconstrained", 16 + 8),
        ("mhc-orthogonal", 6 + 8),
        ("mhc-spectral", 9 + 8),
    ],
)
def test_the_parameter_count_is_that_of_the_formula(name: str, rows: int) -> None:
    each = build(name, width=128, depth=8, index=3)
    gates = 2 if name == "mhc-identity" else 3
    assert sum(p.numel() for p in each.parameters()) == rows * (4 * 128 + 1) + gates


@torch.no_grad()
def test_static_maps_are_the_same_function_of_their_parameters_for_every_token() -> None:
    stream = streams_of(4)
    plain = connection("hc-static")
    found = plain.maps(stream)
    for map_, own in zip(found, ("static_pre", "static_post", "static_res"), strict=True):
        torch.testing.assert_close(map_, plain.get_parameter(own).expand_as(map_))
    constrained = connection("mhc-static", sinkhorn_iterations=3)
    pre, post, res = (each[0, 1] for each in constrained.maps(stream))
    own = {name: value.tolist() for name, value in constrained.named_parameters()}
    assert pre.tolist() == pytest.approx([sigmoid(value) for value in own["bias_pre"]])
    assert post.tolist() == pytest.approx([2 * sigmoid(value) for value in own["bias_post"]])
    torch.testing.assert_close(res, torch.tensor(loop_oracle(own["bias_res"], 3)).double())
    assert (res - res.T).abs().max() > 0.02


@torch.no_grad()
def test_static_hyper_connections_equal_dynamic_ones_without_their_dynamic_part() -> None:
    dynamic, static = connection("hc"), connection("hc-static")
    dynamic.weight.zero_()
    for which in ("pre", "post", "res"):
        static.get_parameter(f"static_{which}").copy_(dynamic.get_parameter(f"static_{which}"))
    for mine, other in zip(static.maps(streams_of(4)), dynamic.maps(streams_of(4)), strict=True):
        torch.testing.assert_close(mine, other)


@torch.no_grad()
@pytest.mark.parametrize("components", ["res", "pre+post", "post+res", "pre+post+res"])
def test_a_learned_component_is_that_of_hc_and_a_fixed_one_the_tables_constant(components: str) -> None:
    part, whole = connection("hc-components", components=components), connection("hc")
    own = dict(part.named_parameters())
    rows = {"pre": slice(0, 1), "post": slice(1, 2), "res": slice(2, 6)}
    for which in components.split("+"):
        whole.weight[rows[which]] = own[f"weight_{which}"]
        whole.get_parameter(f"static_{which}").copy_(own[f"static_{which}"])
    for gate in part.gate_parameters():
        whole.get_parameter(gate).copy_(own[gate])
    constants = {"pre": torch.full((4,), 0.25), "post": torch.ones(4), "res": torch.eye(4)}
    found, expected = part.maps(streams_of(4)), whole.maps(streams_of(4))
    for which, map_, other in zip(("pre", "post", "res"), found, expected, strict=True):
        wanted = other if which in components.split("+") else constants[which].double().expand_as(other)
        torch.testing.assert_close(map_, wanted)


@torch.no_grad()
def test_the_mixing_of_hc_alone_parts_the_streams_at_the_first_write() -> None:
    each = build("hc-components", width=WIDTH, depth=4, index=0, components="res").double()
    stream = each.expand(hidden())
    read, carry = each.read(stream)
    written = each.write(stream, torch.tanh(read), carry)
    assert (written[..., 0, :] - written[..., 1, :]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mhc-lite", {"streams": 7}, "streams 7: expected no factor over 6"),
        ("kromhc", {"streams": 14}, "streams 14: expected no factor over 6"),
        (
            "hc-components",
            {"components": "res+pre"},
            "unknown components 'res.pre': expected one of .*pre.res",
        ),
        ("mhc-static", {"sinkhorn_iterations": 0}, "sinkhorn_iterations 0"),
        ("mhc-identity", {"streams": 0}, "streams 0"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, width=WIDTH, depth=4, index=1, **options)

"""The probes against loops over tokens and matrices, on chains of connections that stand for a model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from residual_toys import WIDTH, chain, fixed_sublayer, hidden, run
from torch import Tensor

from mhc_bench.errors import RunError
from mhc_bench.model.initialisation import torch_generator
from mhc_bench.residual import Maps, ResidualConnection, build
from mhc_bench.residual.measures import effective_rank, stream_cosine
from mhc_bench.training import probes
from mhc_bench.training.probes import Probe


def probed(
    connections: list[ResidualConnection], seed: int | None = None
) -> tuple[dict[str, float], list[dict[str, float]]]:
    with Probe({f"layer.{each.index}": each for each in connections}, seed) as probe, torch.no_grad():
        run(connections, hidden())
        return probe.measure()


def seen_matrices(connections: list[ResidualConnection]) -> Tensor:
    """H_res [L, N, n, n] of every sublayer and token in the run that `probed` makes."""
    stream, found = connections[0].expand(hidden()), []
    for index, each in enumerate(connections):
        maps = each.maps(stream)
        assert maps is not None
        found.append(maps.res.flatten(0, 1))
        read, carry = each.read(stream)
        stream = each.write(stream, fixed_sublayer(index, read), carry)
    return torch.stack(found).detach()


def amax(matrix: Tensor, axis: int) -> float:
    return max(abs(float(total)) for total in matrix.sum(axis))


@pytest.mark.parametrize("name", ["hc", "mhc"])
def test_gains_of_products_equal_the_product_written_out(name: str) -> None:
    connections = chain(name)
    scalars, rows = probed(connections)
    matrices = seen_matrices(connections)
    depth, tokens = matrices.shape[:2]

    def mean_gain(first: int, last: int, axis: int) -> float:
        gains = []
        for t in range(tokens):
            product = torch.eye(4).double()
            for each in matrices[first : last + 1]:
                product = each[t] @ product
            gains.append(amax(product, axis))
        return sum(gains) / tokens

    for k, row in enumerate(rows):
        assert row["sublayer"] == k
        assert row["forward_gain"] == pytest.approx(mean_gain(k, k, 1))
        assert row["backward_gain"] == pytest.approx(mean_gain(k, k, 0))
        assert row["composite_forward_gain"] == pytest.approx(mean_gain(0, k, 1))
        assert row["composite_backward_gain"] == pytest.approx(mean_gain(k, depth - 1, 0))
    assert scalars["composite_forward_gain"] == pytest.approx(mean_gain(0, depth - 1, 1))
    assert scalars["composite_backward_gain"] == pytest.approx(mean_gain(0, depth - 1, 0))
    peak = max(row["composite_backward_gain"] for row in rows)
    assert scalars["composite_backward_gain_peak"] == pytest.approx(peak)


def test_the_papers_form_averages_over_tokens_before_multiplying() -> None:
    connections = chain("hc")
    scalars, _ = probed(connections)
    product = torch.eye(4).double()
    for each in seen_matrices(connections).mean(1):
        product = each @ product
    assert scalars["averaged_composite_forward_gain"] == pytest.approx(amax(product, 1))
    assert scalars["averaged_composite_backward_gain"] == pytest.approx(amax(product, 0))
    assert scalars["averaged_composite_forward_gain"] != pytest.approx(scalars["composite_forward_gain"])


def test_distances_errors_and_column_sums_equal_loops() -> None:
    connections = chain("hc")
    scalars, rows = probed(connections)
    matrices = seen_matrices(connections)
    eye = torch.eye(4).double()
    for row, each in zip(rows, matrices, strict=True):
        norms = [float((m - eye).square().sum().sqrt()) for m in each]
        assert row["identity_distance"] == pytest.approx(sum(norms) / len(norms))
        norms = [float((m - 0.25).square().sum().sqrt()) for m in each]
        assert row["uniform_distance"] == pytest.approx(sum(norms) / len(norms))
        assert row["row_sum_error"] == pytest.approx(max(abs(float(s) - 1) for m in each for s in m.sum(1)))
        assert row["column_sum_error"] == pytest.approx(
            max(abs(float(s) - 1) for m in each for s in m.sum(0))
        )
    lows = []
    for t in range(matrices.shape[1]):
        product = eye
        for each in matrices:
            product = each[t] @ product
        lows.append(float(product.sum(0).min()))
    assert scalars["composite_column_sum_min"] == pytest.approx(sum(lows) / len(lows))
    worst = max(row["column_sum_error"] for row in rows)
    assert scalars["sublayer_column_sum_error_max"] == pytest.approx(worst)


def test_mhc_has_forward_gain_one_and_its_error_in_the_columns() -> None:
    scalars, _ = probed(chain("mhc", sinkhorn_iterations=2))
    assert scalars["composite_forward_gain"] == pytest.approx(1, abs=1e-12)
    assert scalars["sublayer_row_sum_error_max"] < 1e-12 < 1e-4 < scalars["sublayer_column_sum_error_max"]
    assert scalars["composite_backward_gain"] > 1 + 1e-5


def test_the_baseline_is_exactly_one_and_silent_about_streams() -> None:
    scalars, rows = probed(chain("baseline"))
    gains = [value for row in (scalars, *rows) for key, value in row.items() if "gain" in key]
    assert set(gains) <= {0.0, 1.0}
    assert [key for key, value in scalars.items() if "gain" in key and value == 0.0] == [
        "composite_forward_gain_log10",
        "composite_backward_gain_log10",
    ]
    assert math.isnan(scalars["stream_cosine"]) and math.isnan(scalars["stream_effective_rank"])


@pytest.mark.parametrize("name", ["hc", "mhc"])
def test_the_start_distance_is_zero_at_the_start_and_not_after_a_change(name: str) -> None:
    connections: list[Any] = [build(name, width=WIDTH, depth=3, index=index) for index in range(3)]
    with torch.no_grad():
        for each in connections:
            for own, parameter in each.named_parameters():
                parameter.copy_(each.initial_value(own, torch_generator(7, f"layer.{each.index}.{own}")))

    def distance(seed: int | None) -> float:
        with Probe({f"layer.{each.index}": each for each in connections}, seed) as probe, torch.no_grad():
            run(connections, hidden(dtype=torch.float32))
            return probe.measure()[0]["start_distance"]

    kept = [p.clone() for each in connections for p in each.parameters()]
    assert distance(7) == 0
    assert math.isnan(distance(None))
    moved = connections[1].static_res if name == "hc" else connections[1].bias_res
    with torch.no_grad():
        moved.view(-1)[1] += 1.0
    assert distance(7) > 0.01
    now = [p for each in connections for p in each.parameters()]
    assert sum(not torch.equal(a, b) for a, b in zip(kept, now, strict=True)) == 1


def test_gates_are_reported_by_name() -> None:
    connections = chain("mhc")
    scalars, rows = probed(connections)
    expected = [each.get_parameter("alpha_res").item() for each in connections]
    assert [row["gate_alpha_res"] for row in rows] == pytest.approx(expected)
    assert scalars["gate_alpha_res"] == pytest.approx(sum(expected) / len(expected))


def test_products_too_large_for_fp32_are_numbers_and_beyond_float64_infinite() -> None:
    connections: list[Any] = [build("hc", width=WIDTH, depth=40, index=index) for index in range(40)]
    for exponent, expected in ((1.0, 40.0), (20.0, math.inf)):
        with torch.no_grad():
            for each in connections:
                each.static_res.copy_(torch.eye(4) * 10**exponent)
        with Probe({str(each.index): each for each in connections}) as probe, torch.no_grad():
            stream = connections[0].expand(hidden(dtype=torch.float32))
            for each in connections:
                each.read(stream)
            scalars, _ = probe.measure()
        assert scalars["composite_forward_gain_log10"] == pytest.approx(expected)


def test_singular_values_that_are_not_found_leave_one_scalar_without_a_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(streams: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    expected, _ = probed(chain("mhc"), seed=0)
    monkeypatch.setattr(probes, "effective_rank", failing)
    scalars, _ = probed(chain("mhc"), seed=0)
    assert math.isnan(scalars.pop("stream_effective_rank"))
    assert expected.pop("stream_effective_rank") > 1 and scalars == expected


class NoMatrix(ResidualConnection):
    """A variant without a mixing matrix."""

    def expand(self, hidden: Tensor) -> Tensor:
        return hidden

    def read(self, stream: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        return stream, ()

    def write(self, stream: Tensor, update: Tensor, carry: tuple[Any, ...]) -> Tensor:
        return stream + update

    def collapse(self, stream: Tensor) -> Tensor:
        return stream


def test_a_variant_without_maps_says_so() -> None:
    scalars, rows = probed([NoMatrix(width=WIDTH, depth=2, index=index) for index in range(2)])
    assert scalars["sublayers_with_maps"] == 0
    assert all(math.isnan(value) for key, value in scalars.items() if key != "sublayers_with_maps")
    assert len(rows) == 2
    assert set(rows[0]) | {"gate_scale_mix", "gate_scale_write"} == set(probed(chain("hc"))[1][0])


def test_probing_leaves_the_connections_as_they_were() -> None:
    connections = chain("mhc")
    before = [dict(vars(each)) for each in connections]
    expected = run(connections, hidden())
    probed(connections, seed=1)
    assert [dict(vars(each)) for each in connections] == before
    assert torch.equal(run(connections, hidden()), expected)


def test_a_method_that_sharding_has_put_on_the_instance_is_called_and_put_back() -> None:
    each: Any = chain("hc")[1]
    calls = []
    own = type(each).read

    def registered(stream: Tensor) -> Any:
        calls.append(stream.shape)
        return own(each, stream)

    each.read = registered
    with Probe({"one": each}), torch.no_grad():
        each.read(each.expand(hidden()))
    assert len(calls) == 1 and vars(each)["read"] is registered


def test_a_sublayer_that_did_not_run_is_named() -> None:
    connections = chain("hc")
    with Probe({f"layer.{each.index}": each for each in connections}) as probe, torch.no_grad():
        connections[0].read(connections[0].expand(hidden()))
        with pytest.raises(RunError, match=r"3 sublayers were not run, the first is layer\.1"):
            probe.measure()
    with pytest.raises(RunError, match="no residual connections"):
        Probe({})


def test_cosine_and_rank_know_copies_and_orthogonal_streams() -> None:
    copies = torch.ones(4, 6).double()
    assert float(stream_cosine(copies)) == pytest.approx(1) and float(
        effective_rank(copies)
    ) == pytest.approx(1)
    orthogonal = torch.eye(4, 6).double() * torch.tensor([1.0, 1.0, 1.0, 1.0]).double()[:, None]
    assert float(stream_cosine(orthogonal)) == pytest.approx(0)
    assert float(effective_rank(orthogonal)) == pytest.approx(4)
    opposite = torch.stack([copies[0], -copies[0]])
    assert float(stream_cosine(opposite)) == pytest.approx(-1)


def test_maps_are_a_named_triple() -> None:
    assert Maps._fields == ("pre", "post", "res")


@pytest.mark.parametrize("name", ["hc", "mhc"])
def test_mixing_is_the_mean_over_tokens_of_each_matrix_and_of_their_product(name: str) -> None:
    connections = chain(name)
    with Probe({f"layer.{each.index}": each for each in connections}) as probe, torch.no_grad():
        run(connections, hidden())
        found = probe.mixing()
    assert found is not None
    matrices = seen_matrices(connections)
    products = [torch.eye(4).double()] * matrices.shape[1]
    for each in matrices:
        products = [each[t].double() @ product for t, product in enumerate(products)]
    torch.testing.assert_close(found[0], matrices.double().mean(1))
    torch.testing.assert_close(found[1], torch.stack(products).mean(0))
    assert not torch.equal(found[1], found[1].T)  # or a transposed matrix would pass


def test_there_is_no_mixing_where_a_sublayer_has_no_maps() -> None:
    connections = chain("attnres")
    with Probe({f"layer.{each.index}": each for each in connections}) as probe, torch.no_grad():
        run(connections, hidden())
        assert probe.mixing() is None

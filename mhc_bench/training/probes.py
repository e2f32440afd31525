"""The health of a grafted model's residual connections: gains, distances, stream use. Measures only.

Cost: one forward pass of the probe batch, H_res of each sublayer once more (twice with a seed), and
per-token float64 arithmetic on n x n matrices.
Shape legend: L sublayers, N probe tokens, n streams, C width. All arithmetic is float64 on the CPU, where a
product of 48 matrices of gain 10^6 still fits; what does not fit is reported as inf.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mhc_bench.errors import RunError
from mhc_bench.model.initialisation import torch_generator
from mhc_bench.residual import Carry, Maps, ResidualConnection
from mhc_bench.residual.measures import (
    backward_gain,
    effective_rank,
    forward_gain,
    prefix_row_sums,
    stream_cosine,
    suffix_column_sums,
)

Row = dict[str, float]
NAN = math.nan


class Probe:
    """Watches the connections during forward passes inside its `with` block, then measures the last pass.

        with Probe(residual_connections(model), seed=0) as probe:
            model(input_ids=ids, use_cache=False)
            scalars, rows = probe.measure()

    A quantity without meaning is NaN: everything about maps where `maps()` is None (`sublayers_with_maps`
    counts the others), everything about several streams where there is one.

    Args:
        connections: qualified name -> connection, in the order of the sublayers.
        seed: with which the model was filled, so that H_res can be compared with its start; None leaves the
            start distance NaN.

    Raises:
        RunError: when there are no connections.
    """

    def __init__(self, connections: Mapping[str, ResidualConnection], seed: int | None = None) -> None:
        if not connections:
            raise RunError("probe: the model has no residual connections; graft it first")
        self.connections = dict(connections)
        self.seed = seed
        self._seen: dict[str, _Sublayer] = {}
        self._final: Tensor | None = None

    def __enter__(self) -> Self:
        for name, connection in self.connections.items():
            _wrap(connection, "read", functools.partial(self._on_read, name))
            _wrap(connection, "collapse", self._on_collapse)
            # a fused write and read would not pass by the next connection's `read`
            _replace(connection, "write_read", functools.partial(ResidualConnection.write_read, connection))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self.connections.values():
            for method in ("read", "collapse", "write_read"):
                _restore(connection, method)

    @torch.no_grad()
    def measure(self) -> tuple[Row, list[Row]]:
        """Scalars of the whole model, and one row per sublayer in order.

        Raises:
            RunError: when a sublayer has not run inside the `with` block.
        """
        if missing := [name for name in self.connections if name not in self._seen]:
            raise RunError(f"probe: {len(missing)} sublayers were not run, the first is {missing[0]}")
        sublayers = [self._seen[name] for name in self.connections]
        rows = [_sublayer_row(index, each) for index, each in enumerate(sublayers)]
        composite = _composites(sublayers, rows)
        return {**_over_sublayers(rows), **composite, **self._final_streams(sublayers)}, rows

    @torch.no_grad()
    def mixing(self) -> tuple[Tensor, Tensor] | None:
        """H_res of each sublayer [L, n, n] and the product of all [n, n], each the mean over tokens.

        None where a sublayer has no maps. Before the mean, the product is one of each token's own matrices.
        """
        found = [each.maps.res for name in self.connections if (each := self._seen[name]).maps is not None]
        if len(found) < len(self.connections):
            return None
        product = functools.reduce(lambda below, above: above @ below, found)
        return torch.stack(found).mean(1), product.mean(0)

    @torch.no_grad()
    def _on_read(self, name: str, stream: Tensor) -> None:
        connection = self.connections[name]
        maps = connection.maps(stream)
        start = (
            None if self.seed is None or maps is None else _start_maps(connection, name, self.seed, stream)
        )
        cosine = NAN if not _is_widened(stream, maps) else float(stream_cosine(_plain(stream)).mean())
        self._seen[name] = _Sublayer(connection, maps, start, cosine)

    def _on_collapse(self, stream: Tensor) -> None:
        self._final = stream.detach()

    def _final_streams(self, sublayers: list[_Sublayer]) -> Row:
        stream = self._final
        if stream is None or not _is_widened(stream, sublayers[-1].maps):
            return {"stream_cosine": NAN, "stream_effective_rank": NAN}
        streams = _plain(stream)
        return {
            "stream_cosine": float(stream_cosine(streams).mean()),
            "stream_effective_rank": _mean_rank(streams),
        }


class _Sublayer:
    """What was seen of one sublayer: its maps over tokens, in float64."""

    def __init__(
        self, connection: ResidualConnection, maps: Maps | None, start: Maps | None, cosine: float
    ) -> None:
        self.connection, self.cosine = connection, cosine
        self.maps = None if maps is None else Maps(*(_tokens(each, maps.pre.ndim - 1) for each in maps))
        self.start = None if start is None else _tokens(start.res, start.pre.ndim - 1)


def _sublayer_row(index: int, sublayer: _Sublayer) -> Row:
    """The row of one sublayer; composite gains are filled in later."""
    row: Row = {"sublayer": index, **dict.fromkeys(_MAP_COLUMNS, NAN), "stream_cosine": sublayer.cosine}
    if sublayer.maps is not None:
        pre, post, res = sublayer.maps
        n = res.shape[-1]
        identity = torch.eye(n, dtype=res.dtype)
        row |= {
            "forward_gain": float(forward_gain(res).mean()),
            "backward_gain": float(backward_gain(res).mean()),
            "row_sum_error": float((res.sum(-1) - 1).abs().max()),
            "column_sum_error": float((res.sum(-2) - 1).abs().max()),
            "identity_distance": _distance(res, identity),
            "uniform_distance": _distance(res, torch.full_like(identity, 1 / n)),
            "start_distance": NAN if sublayer.start is None else _distance(res, sublayer.start),
            "pre_mean": float(pre.mean()),
            "post_mean": float(post.mean()),
        }
    return row | _gates(sublayer.connection)


_MAP_COLUMNS = (
    "forward_gain",
    "backward_gain",
    "composite_forward_gain",
    "composite_backward_gain",
    "row_sum_error",
    "column_sum_error",
    "identity_distance",
    "uniform_distance",
    "start_distance",
    "pre_mean",
    "post_mean",
)


def _composites(sublayers: list[_Sublayer], rows: list[Row]) -> Row:
    """Gains of the products: per token and then averaged, and of the matrices averaged over tokens first.

    Fills the composite columns of `rows`: forward of sublayers 0..l, backward of sublayers l..L-1.
    """
    found = [each.maps.res for each in sublayers if each.maps is not None]
    if len(found) < len(sublayers):
        return dict.fromkeys(_COMPOSITES, NAN)
    res = torch.stack(found)
    forward, columns = prefix_row_sums(res).abs().amax(-1), suffix_column_sums(res)
    backward = columns.abs().amax(-1)
    for row, up, down in zip(rows, forward.mean(-1), backward.mean(-1), strict=True):
        row["composite_forward_gain"], row["composite_backward_gain"] = float(up), float(down)
    averaged = res.mean(1, keepdim=True)
    values = (
        forward[-1].mean(),
        backward[0].mean(),
        forward.mean(-1).max(),
        backward.mean(-1).max(),
        forward[-1].log10().mean(),
        backward[0].log10().mean(),
        prefix_row_sums(averaged)[-1].abs().max(),
        suffix_column_sums(averaged)[0].abs().max(),
        columns[0].amin(-1).mean(),
        columns[0].amax(-1).mean(),
    )
    return {name: float(value) for name, value in zip(_COMPOSITES, values, strict=True)}


_COMPOSITES = (
    "composite_forward_gain",
    "composite_backward_gain",
    "composite_forward_gain_peak",
    "composite_backward_gain_peak",
    "composite_forward_gain_log10",
    "composite_backward_gain_log10",
    "averaged_composite_forward_gain",
    "averaged_composite_backward_gain",
    "composite_column_sum_min",
    "composite_column_sum_max",
)
"""Of the product of all sublayers, except the peaks, which are over the depth that a product reaches."""


def _over_sublayers(rows: list[Row]) -> Row:
    """The largest gain and error over sublayers, and the mean of everything else."""
    scalars: Row = {"sublayers_with_maps": sum(not math.isnan(row["forward_gain"]) for row in rows)}
    for column in (*_MAP_COLUMNS, *(name for name in rows[0] if name.startswith("gate_"))):
        values = [row[column] for row in rows]
        if column.startswith("composite"):
            continue
        if column.endswith(("gain", "error")):
            scalars[f"sublayer_{column}_max"] = max(values) if not any(map(math.isnan, values)) else NAN
        else:
            scalars[column] = sum(values) / len(values)
    return scalars


def _gates(connection: ResidualConnection) -> Row:
    """gate_<name>: the mean value of each gate parameter; collective where it is sharded."""
    gates = {name: connection.get_parameter(name) for name in sorted(connection.gate_parameters())}
    return {f"gate_{name}": float(_full(gate).mean()) for name, gate in gates.items()}


def _full(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def _start_maps(connection: ResidualConnection, name: str, seed: int, stream: Tensor) -> Maps | None:
    """The maps that the connection would have on this stream with the parameters that it started with."""
    start = {
        f"connection.{own}": connection.initial_value(own, torch_generator(seed, f"{name}.{own}")).to(
            stream.device
        )
        for own, _ in connection.named_parameters()
    }
    maps: Maps | None = torch.func.functional_call(_MapsOnly(connection), start, (stream,))
    return maps


class _MapsOnly(nn.Module):
    """A module whose forward is a connection's `maps`, past whatever sharding has put around that method."""

    def __init__(self, connection: ResidualConnection) -> None:
        super().__init__()
        self.connection = connection

    def forward(self, stream: Tensor) -> Maps | None:
        return type(self.connection).maps(self.connection, stream)


def _wrap(connection: ResidualConnection, method: str, watch: Any) -> None:
    """Call `watch(stream)` before the connection's own method."""
    original = getattr(connection, method)

    @functools.wraps(original)
    def watched(stream: Tensor) -> Tensor | tuple[Tensor, Carry]:
        watch(stream)
        return original(stream)  # type: ignore[no-any-return]

    _replace(connection, method, watched)


def _replace(connection: ResidualConnection, method: str, by: Any) -> None:
    """Put `by` in the method's place until `_restore`."""
    by.__dict__["original"] = vars(connection).get(method)
    vars(connection)[method] = by


def _restore(connection: ResidualConnection, method: str) -> None:
    """Undo `_replace`, back to what sharding may have put on the instance."""
    original = vars(connection).pop(method).original
    if original is not None:
        vars(connection)[method] = original


def _is_widened(stream: Tensor, maps: Maps | None) -> bool:
    """Whether the stream is [..., n, C] with n > 1 streams."""
    return maps is not None and maps.pre.shape[-1] > 1 and stream.shape[-2:-1] == maps.pre.shape[-1:]


def _mean_rank(streams: Tensor) -> float:
    """NaN where streams are not finite, or where LAPACK's iteration finds no singular values."""
    if not bool(streams.isfinite().all()):
        return NAN
    try:
        return float(effective_rank(streams).mean())
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return NAN


def _plain(stream: Tensor) -> Tensor:
    """[N, n, C] in float64 on the CPU."""
    return stream.detach().to("cpu", torch.float64).reshape(-1, *stream.shape[-2:])


def _tokens(maps: Tensor, leading: int) -> Tensor:
    """[N, ...] in float64 on the CPU, from maps with `leading` axes of batch and time."""
    return maps.detach().to("cpu", torch.float64).flatten(0, leading - 1)


def _distance(res: Tensor, other: Tensor) -> float:
    """Frobenius distance, mean over tokens."""
    return float(torch.linalg.matrix_norm(res - other).mean())

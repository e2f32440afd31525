"""What a residual connection costs in one sublayer beyond a plain one, by formula: nothing is run."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from mhc_bench.bench.floor import connection_traffic, stream_count
from mhc_bench.bench.traffic import LEVELS, Pass, Traffic, plain_traffic
from mhc_bench.model import count_parameters, flops_per_token, residual_connections
from mhc_bench.residual.widened import WidenedConnection

ITEMSIZE = {"fp32": 4, "bf16": 2}
"""Bytes of an element of the stream, by training precision."""


def sublayer_overhead(
    model: PreTrainedModel, plain: PreTrainedModel, sequence_length: int, precision: str
) -> dict[str, Any]:
    """What one sublayer's connection adds, mean over the sublayers; traffic is that of the first one.

    Args:
        model: the grafted backbone; it may be on the meta device, like `plain`.
        plain: the same backbone with the baseline.
    """
    connections = list(residual_connections(model).values())
    before = flops_per_token(plain, sequence_length)
    return {
        "parameters": count_parameters(model)["residual"] / len(connections),
        "flops_per_token": {
            "matrices": (flops_per_token(model, sequence_length) - before) / len(connections),
            "mixing": sum(map(mixing_flops, connections)) / len(connections),
            "of_the_plain_model": before,
        },
        "traffic": _traffic(connections[0], int(model.config.hidden_size), ITEMSIZE[precision]),
    }


def mixing_flops(connection: Any) -> int:
    """Forward and backward operations per token of applying the maps, which no count of matrices holds.

    A multiplication and an addition for each of n entries of H_pre and of H_post and n*n of H_res, C times,
    and twice that backward; 0 for kinds without such maps.
    """
    if not isinstance(connection, WidenedConnection):
        return 0
    n = connection.streams
    return 3 * 2 * connection.width * (n + n + n * n)


def _traffic(connection: Any, width: int, itemsize: int) -> dict[str, Any] | None:
    """Units and bytes per token at each level of the I/O model; None for a kind that it does not cover."""
    streams, plain = stream_count(connection, width), plain_traffic()
    told: dict[str, Any] = {"plain": _passes({"forward": plain, "backward": plain}, width, itemsize)}
    for level in LEVELS:
        passes = connection_traffic(connection, streams, level)
        if passes is None:
            return None
        told[level] = _passes(passes, width, itemsize)
    return told


def _passes(passes: dict[Pass, Traffic], width: int, itemsize: int) -> dict[str, int]:
    """Hidden states of C elements moved each way, and bytes both ways, per token."""
    units = {f"{direction}_units": traffic.units for direction, traffic in passes.items()}
    return units | {"bytes": sum(traffic.bytes(1, width, itemsize) for traffic in passes.values())}

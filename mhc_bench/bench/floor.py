"""The least that a training step could take on this machine: its arithmetic and its streams' traffic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mhc_bench.bench.rates import MachineRates
from mhc_bench.bench.traffic import DIRECTIONS, LEVELS, Level, Pass, Traffic, plain_traffic, sublayer_traffic
from mhc_bench.model import flops_per_token, residual_connections
from mhc_bench.residual.baseline import Baseline
from mhc_bench.residual.widened import WidenedConnection

GOAL_LEVEL: Level = "joined"
"""The floor that an overhead is held against: 14 units forward and 23 backward at n = 4."""


@dataclass(frozen=True)
class Moved:
    """What the residual connections of one step move."""

    units: int
    """Hidden states per token and sublayer, forward and backward."""
    bytes: int
    seconds: float
    """At the measured copy bandwidth."""


@dataclass(frozen=True)
class StepFloor:
    """Seconds of one step if arithmetic ran at the measured matmul rate and streams at the copy bandwidth."""

    flops: int
    flops_seconds: float
    streams: int
    """Width of the residual stream, in hidden states."""
    traffic: dict[str, Moved]
    """By level of `mhc_bench.bench.traffic`; empty for a connection that the I/O model does not cover."""


def step_floor(
    model: PreTrainedModel, tokens: int, sequence_length: int, rates: MachineRates, itemsize: int
) -> StepFloor:
    """The floor of a step over `tokens` in rows of `sequence_length`.

    The optimizer's traffic is not counted, nor what is read and written once per model: making the streams
    from the embedding, and summing them at the end.

    Args:
        itemsize: bytes of one element of the stream.
    """
    connections = residual_connections(model)
    first, width = next(iter(connections.values())), int(model.config.hidden_size)
    streams = stream_count(first, width)
    flops = flops_per_token(model, sequence_length) * tokens
    traffic = {}
    for level in LEVELS:
        if (both := connection_traffic(first, streams, level)) is not None:
            passes = both["forward"] + both["backward"]
            size = len(connections) * passes.bytes(tokens, width, itemsize)
            traffic[str(level)] = Moved(passes.units, size, size / rates.copy_bytes_per_second)
    return StepFloor(flops, flops / rates.matmul_flops_per_second, streams, traffic)


def connection_traffic(connection: torch.nn.Module, streams: int, level: Level) -> dict[Pass, Traffic] | None:
    """What a connection moves in one sublayer; None for a kind that the I/O model does not cover."""
    if isinstance(connection, Baseline):
        return {direction: plain_traffic() for direction in DIRECTIONS}
    if isinstance(connection, WidenedConnection):
        return {direction: sublayer_traffic(streams, direction, level) for direction in DIRECTIONS}
    return None


def stream_count(connection: torch.nn.Module, width: int) -> int:
    """How many hidden states wide a connection's stream is."""
    if isinstance(connection, WidenedConnection):
        return connection.streams
    parameter = next(connection.parameters(), torch.empty(0))
    hidden = torch.zeros(1, 1, width, device=parameter.device)
    with torch.no_grad():
        stream: torch.Tensor = connection.expand(hidden)  # type: ignore[operator]
    return stream.numel() // hidden.numel()

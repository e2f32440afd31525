"""The least that a training step could take on this machine: its arithmetic and its streams' traffic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mhc_bench.bench.rates import MachineRates
from mhc_bench.model import flops_per_token, residual_connections

BACKWARD = 2
"""Backward traffic of the residual connections in forwards: assumed, the I/O model covers the forward."""


@dataclass(frozen=True)
class StepFloor:
    """Seconds of one step if arithmetic ran at the measured matmul rate and streams at the copy bandwidth."""

    flops: int
    flops_seconds: float
    streams: int
    """Width of the residual stream, in hidden states."""
    residual_bytes: int
    """Traffic of the residual connections if each read and write were one pass over its operands."""
    residual_seconds: float
    unfused_bytes: int
    """The same with one pass per operation, as written in eager PyTorch."""
    unfused_seconds: float


def step_floor(
    model: PreTrainedModel, tokens: int, sequence_length: int, rates: MachineRates, itemsize: int = 4
) -> StepFloor:
    """The floor of a step over `tokens` in rows of `sequence_length`; the optimizer's traffic is not counted.

    Args:
        itemsize: bytes of one element of the stream.
    """
    connections = residual_connections(model)
    flops = flops_per_token(model, sequence_length) * tokens
    width = int(model.config.hidden_size)
    streams = stream_count(next(iter(connections.values())), width)
    passes = (1 + BACKWARD) * tokens * len(connections) * itemsize
    fused, unfused = (passes * count for count in residual_elements(streams, width))
    return StepFloor(
        flops=flops,
        flops_seconds=flops / rates.matmul_flops_per_second,
        streams=streams,
        residual_bytes=fused,
        residual_seconds=fused / rates.copy_bytes_per_second,
        unfused_bytes=unfused,
        unfused_seconds=unfused / rates.copy_bytes_per_second,
    )


def residual_elements(streams: int, width: int) -> tuple[int, int]:
    """Elements that one sublayer's residual connection moves per token and forward pass: fused, unfused.

    n = `streams`, C = `width`. A plain residual reads 2C and writes C. Hyper-connections (arXiv 2512.24880,
    table 2) read (5n+1)C + n² + 2n and write (3n+1)C + n² + 2n unfused; with fused maps and merge the reads
    are (3n+1)C and the writes (n+1)C.
    """
    if streams == 1:
        return 3 * width, 3 * width
    n = streams
    return (4 * n + 2) * width, (8 * n + 2) * width + 2 * (n * n + 2 * n)


def stream_count(connection: torch.nn.Module, width: int) -> int:
    """How many hidden states wide a connection's stream is."""
    parameter = next(connection.parameters(), torch.empty(0))
    hidden = torch.zeros(1, 1, width, device=parameter.device)
    with torch.no_grad():
        stream: torch.Tensor = connection.expand(hidden)  # type: ignore[operator]
    return stream.numel() // hidden.numel()

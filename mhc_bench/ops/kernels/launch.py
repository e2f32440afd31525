"""Launching kernels on tensors, and room for their results.

Shapes: `...` batch and time, n streams, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops.kernels.blocks import Blocks, Sizes, table_shape

STREAM_TYPES = (torch.float32, torch.bfloat16, torch.float16)


class Projection(NamedTuple):
    """What maps are made from: a projection of the streams, what is added to it, and how."""

    weight: Tensor
    """mHC: [n * (2 + n), n * C]; HC: [2 + n, C]."""
    static: Tensor
    """[2 + n, n]: mHC's biases, HC's static maps."""
    gates: Tensor
    """mHC: [3], of pre, post and res; HC: [2], of pre and res, and of post."""
    iterations: int
    """Sinkhorn rounds; no meaning for HC."""
    epsilon: float
    hc: bool


def on(stream: Tensor) -> AbstractContextManager[object]:
    """The device of `stream` made the current one.

    Raises:
        UsageError: Triton has no code for it.
    """
    if stream.dtype not in STREAM_TYPES:
        raise UsageError(f"streams in {stream.dtype}: expected fp32, bf16 or fp16 for the Triton kernels")
    if stream.is_cuda:
        return torch.cuda.device(stream.device)
    if not triton.knobs.runtime.interpret:
        kind = stream.device.type
        raise UsageError(f"operations 'triton' on a {kind} tensor: expected a CUDA device, or 'eager'")
    return nullcontext()


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: Sequence[Tensor | int | float | None], **constants: Any
) -> None:
    """Run `kernel` on the device of the first argument, tensors made contiguous."""
    first = arguments[0]
    assert isinstance(first, Tensor)
    with on(first):
        kernel[grid](
            *(each.contiguous() if isinstance(each, Tensor) else each for each in arguments), **constants
        )


def block_constants(sizes: Sizes, block: Blocks) -> dict[str, int]:
    """What every kernel but the projection's is specialised on."""
    return {"n": sizes.n, "BT": block.tokens, "BC": block.channels, "num_warps": block.warps}


def table_constants(sizes: Sizes) -> dict[str, int]:
    """Of kernels that hold the table of a token's maps."""
    rows, columns = table_shape(sizes.n)
    return {"QP": rows, "NP": columns}


def like(x: Tensor) -> Tensor:
    """Room for a tensor like `x`, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def hidden_like(stream: Tensor) -> Tensor:
    """Room for a hidden state [..., C]."""
    return stream.new_empty(*stream.shape[:-2], stream.shape[-1])


def maps_like(stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for pre [..., n], post [..., n] and res [..., n, n] in fp32."""
    *lead, n, _ = stream.shape
    make = stream.new_empty
    return (
        make(*lead, n, dtype=torch.float32),
        make(*lead, n, dtype=torch.float32),
        make(*lead, n, n, dtype=torch.float32),
    )


def tables_like(stream: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the normalised projection [..., 2 + n, n] and the inverse RMS [..., n] in fp32."""
    *lead, n, _ = stream.shape
    table = stream.new_empty(*lead, 2 + n, n, dtype=torch.float32)
    return table, stream.new_empty(*lead, n, dtype=torch.float32)


def projected_like(stream: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Room for a projection [..., K] and the inverse RMS [...] in fp32."""
    lead = stream.shape[:-2]
    make = stream.new_empty
    return make(*lead, len(weight), dtype=torch.float32), make(lead, dtype=torch.float32)

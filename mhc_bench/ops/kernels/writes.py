"""The kernels that write streams, as functions of tensors. Results are fresh tensors.

Shapes: `...` batch and time, n streams, C width.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from mhc_bench.ops.kernels import blocks
from mhc_bench.ops.kernels.blocks import PRECISION, sizes_of
from mhc_bench.ops.kernels.launch import (
    Projection,
    block_constants,
    launch,
    like,
    maps_like,
    table_constants,
    tables_like,
)
from mhc_bench.ops.kernels.write import write_backward_kernel, write_kernel
from mhc_bench.ops.kernels.write_read import write_coefficients_kernel
from mhc_bench.ops.kernels.write_read_backward import write_read_backward_kernel


class Write(NamedTuple):
    """What is written."""

    stream: Tensor
    """[..., n, C]."""
    update: Tensor
    """[..., C]."""
    post: Tensor
    """[..., n]."""
    res: Tensor
    """[..., n, n]."""


def write(operands: Write) -> Tensor:
    """H_res x + H_post^T F in the dtype of the streams."""
    sizes = sizes_of(operands.stream)
    written = like(operands.stream)
    block = blocks.mixing_blocks(sizes)
    launch(
        write_kernel,
        (triton.cdiv(sizes.tokens, block.tokens), triton.cdiv(sizes.width, block.channels)),
        (*operands, written, sizes.tokens, sizes.width),
        **block_constants(sizes, block),
    )
    return written


def write_backward(operands: Write, grad: Tensor) -> Write:
    """The gradients of the operands."""
    sizes = sizes_of(operands.stream)
    grads = Write(*map(like, operands))
    block = blocks.mixing_backward_blocks(sizes)
    launch(
        write_backward_kernel,
        (triton.cdiv(sizes.tokens, block.tokens),),
        (*operands, grad, *grads, sizes.tokens, sizes.width),
        LANES=block.channels // blocks.ELEMENTS,
        **block_constants(sizes, block),
    )
    return grads


def write_coefficients(
    operands: Write, projection: Projection
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`write`, and `reads.coefficients` of what was written."""
    stream = operands.stream
    sizes = sizes_of(stream)
    weight, static, gates, iterations, epsilon, hc = projection
    written, maps, kept = like(stream), maps_like(stream), tables_like(stream)
    block = blocks.write_read_blocks(sizes)
    made = written, weight, static, gates, *kept, *maps
    launch(
        write_coefficients_kernel,
        (triton.cdiv(sizes.tokens, block.tokens),),
        (*operands, *made, sizes.tokens, sizes.width, epsilon, iterations),
        HC=hc,
        PRECISION=PRECISION,
        **table_constants(sizes),
        **block_constants(sizes, block),
    )
    return written, *maps, *kept


def write_read_backward(
    operands: Write,
    grad_written: Tensor,
    grad_hidden: Tensor,
    next_pre: Tensor,
    raw: Tensor,
    radial: Tensor,
    weight: Tensor,
    hc: bool,
) -> Write:
    """The gradients of the operands, from those of what was written and of what the next read made of it.

    `raw` and `radial` are what `reads.coefficients_backward` gives.
    """
    sizes = sizes_of(operands.stream)
    grads = like(operands.stream), like(operands.update)
    block, share = blocks.write_read_backward_blocks(sizes, hc)
    columns = triton.cdiv(sizes.width, block.channels)
    partial = [each.new_empty(columns, *each.shape) for each in operands[2:]]
    given = (*operands, grad_written, grad_hidden, next_pre, raw, radial, weight)
    launch(
        write_read_backward_kernel,
        (columns, triton.cdiv(sizes.tokens, share)),
        (*given, *grads, *partial, sizes.tokens, sizes.width, share),
        K=len(weight),
        HC=hc,
        **block_constants(sizes, block),
    )
    return Write(*grads, *(each.sum(0) for each in partial))

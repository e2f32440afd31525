"""The kernels that read streams, as functions of tensors. Results are fresh tensors.

Shapes: `...` batch and time, n streams, C width, K rows of a weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from mhc_bench.ops.kernels import blocks
from mhc_bench.ops.kernels.aggregate import aggregate_backward_kernel, aggregate_kernel
from mhc_bench.ops.kernels.blocks import PRECISION, sizes_of
from mhc_bench.ops.kernels.coefficients import coefficients_backward_kernel, coefficients_kernel
from mhc_bench.ops.kernels.launch import (
    Projection,
    block_constants,
    hidden_like,
    launch,
    like,
    maps_like,
    projected_like,
    table_constants,
    tables_like,
)
from mhc_bench.ops.kernels.projection import projection_kernel
from mhc_bench.ops.kernels.stream_gradient import stream_gradient_kernel


def coefficients(stream: Tensor, projection: Projection) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """pre, post, res, and what backward needs: the normalised projection and the inverse RMS."""
    sizes = sizes_of(stream)
    weight, static, gates, iterations, epsilon, hc = projection
    maps, kept = maps_like(stream), tables_like(stream)
    block = blocks.product_blocks(sizes)
    launch(
        coefficients_kernel,
        (triton.cdiv(sizes.tokens, block.tokens),),
        (stream, weight, static, gates, *kept, *maps, sizes.tokens, sizes.width, epsilon, iterations),
        HC=hc,
        PRECISION=PRECISION,
        **table_constants(sizes),
        **block_constants(sizes, block),
    )
    return *maps, *kept


def coefficients_backward(
    stream: Tensor,
    grad_hidden: Tensor,
    grad_maps: tuple[Tensor, Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    projection: Projection,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The projection's gradient as `stream_gradient` takes it, and those of static and gates."""
    sizes = sizes_of(stream)
    _, static, gates, iterations, _, hc = projection
    raw, radial = map(like, kept)
    block = blocks.sum_blocks(sizes)
    programs = triton.cdiv(sizes.tokens, block.tokens)
    partial = raw.new_empty(programs, 2, 2 + sizes.n, sizes.n)
    given, made = (stream, grad_hidden, *grad_maps, static, gates, *kept), (raw, radial, partial)
    launch(
        coefficients_backward_kernel,
        (programs,),
        (*given, *made, sizes.tokens, sizes.width, iterations),
        HC=hc,
        LANES=block.channels // blocks.ELEMENTS,
        **table_constants(sizes),
        **block_constants(sizes, block),
    )
    of_static, of_entries = partial.sum(0)
    pre, post, *res = of_entries.sum(1)
    mixing = torch.stack(res).sum()
    return raw, radial, of_static, torch.stack([pre + mixing, post] if hc else [pre, post, mixing])


def weight_gradient(
    stream: Tensor, weight: Tensor, raw: Tensor, hc: bool, also: Sequence[Tensor | None] = (None,) * 5
) -> Tensor:
    """The gradient of the weight.

    `also` are what makes the gradient of the streams of it, and room for that: grad_through, grad_hidden,
    pre, radial and grad_stream. Without the first three it is that of the projection alone.
    """
    sizes = sizes_of(stream)
    block, share = blocks.gradient_blocks(sizes)
    shares = triton.cdiv(sizes.tokens, share)
    partial = weight.new_empty(shares, sizes.n if hc else 1, *weight.shape)
    launch(
        stream_gradient_kernel,
        (sizes.n * triton.cdiv(sizes.width, block.channels), shares),
        (stream, raw, weight, *also, partial, sizes.tokens, sizes.width, share),
        K=len(weight),
        KP=max(16, triton.next_power_of_2(len(weight))),
        HC=hc,
        PRECISION=PRECISION,
        **block_constants(sizes, block),
    )
    return partial.sum((0, 1))


def stream_gradient(
    stream: Tensor,
    weight: Tensor,
    raw: Tensor,
    radial: Tensor,
    read: tuple[Tensor, Tensor, Tensor] | None,
    hc: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of the streams and of the weight; `read` are grad_through, grad_hidden and pre."""
    grad_stream = like(stream)
    also = *(read or (None, None, None)), radial, grad_stream
    return grad_stream, weight_gradient(stream, weight, raw, hc, also)


def project(stream: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The normalised projection [..., K] and the inverse RMS [...]."""
    sizes = sizes_of(stream)
    made = projected_like(stream, weight)
    block = blocks.product_blocks(sizes)
    launch(
        projection_kernel,
        (triton.cdiv(sizes.tokens, block.tokens),),
        (stream, weight, *made, sizes.tokens, sizes.n * sizes.width, epsilon),
        K=len(weight),
        KP=max(16, triton.next_power_of_2(len(weight))),
        BT=block.tokens,
        BC=block.channels,
        PRECISION=PRECISION,
        num_warps=block.warps,
    )
    return made


def aggregate(stream: Tensor, pre: Tensor) -> Tensor:
    """H_pre x [..., C] in the dtype of the streams."""
    sizes = sizes_of(stream)
    hidden = hidden_like(stream)
    block = blocks.mixing_blocks(sizes)
    launch(
        aggregate_kernel,
        (triton.cdiv(sizes.tokens, block.tokens), triton.cdiv(sizes.width, block.channels)),
        (stream, pre, hidden, sizes.tokens, sizes.width),
        **block_constants(sizes, block),
    )
    return hidden


def aggregate_backward(stream: Tensor, pre: Tensor, grad_hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the streams and of pre."""
    sizes = sizes_of(stream)
    grads = like(stream), like(pre)
    block = blocks.mixing_backward_blocks(sizes)
    launch(
        aggregate_backward_kernel,
        (triton.cdiv(sizes.tokens, block.tokens),),
        (stream, pre, grad_hidden, *grads, sizes.tokens, sizes.width),
        LANES=block.channels // blocks.ELEMENTS,
        **block_constants(sizes, block),
    )
    return grads

"""The kernels as functions of tensors. Shapes: `...` batch and time, n streams, C width, K rows of a weight.

Results are fresh tensors. A projection is described by `weight`, `static` and `gates`: mHC has weight
[n * (2 + n), n * C], biases [2 + n, n] and gates [3]; HC has weight [2 + n, C], static maps [2 + n, n] and
gates [2].
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops.kernels import blocks
from mhc_bench.ops.kernels.aggregate import aggregate_backward_kernel, aggregate_kernel
from mhc_bench.ops.kernels.blocks import PRECISION, sizes_of, table_shape
from mhc_bench.ops.kernels.coefficients import coefficients_backward_kernel, coefficients_kernel
from mhc_bench.ops.kernels.projection import projection_kernel
from mhc_bench.ops.kernels.stream_gradient import stream_gradient_kernel
from mhc_bench.ops.kernels.write import write_backward_kernel, write_kernel
from mhc_bench.ops.kernels.write_read import write_coefficients_kernel

STREAM_TYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def coefficients(
    stream: Tensor, weight: Tensor, static: Tensor, gates: Tensor, iterations: int, epsilon: float, hc: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """pre, post, res, and what backward needs: the normalised projection and the inverse RMS."""
    sizes = sizes_of(stream)
    maps, kept = maps_like(stream), tables_like(stream)
    rows, columns = table_shape(sizes.n)
    block = blocks.product_blocks(sizes)
    with on(stream):
        coefficients_kernel[(triton.cdiv(sizes.tokens, block.tokens),)](
            stream.contiguous(),
            weight.contiguous(),
            static.contiguous(),
            gates.contiguous(),
            *kept,
            *maps,
            sizes.tokens,
            sizes.width,
            epsilon,
            iterations,
            n=sizes.n,
            QP=rows,
            NP=columns,
            HC=hc,
            BT=block.tokens,
            BC=block.channels,
            PRECISION=PRECISION,
            num_warps=blocks.warps(sizes.n),
        )
    return *maps, *kept


def coefficients_backward(
    stream: Tensor,
    grad_hidden: Tensor,
    grad_maps: tuple[Tensor, Tensor, Tensor],
    static: Tensor,
    gates: Tensor,
    normalised: Tensor,
    inverse: Tensor,
    iterations: int,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The projection's gradient as `stream_gradient` takes it, and those of static and gates."""
    sizes = sizes_of(stream)
    n = sizes.n
    raw, radial = torch.empty_like(normalised), torch.empty_like(inverse)
    rows, columns = table_shape(n)
    block = blocks.sum_blocks(sizes)
    programs = triton.cdiv(sizes.tokens, block.tokens)
    partial = raw.new_empty(programs, 2, 2 + n, n)
    with on(stream):
        coefficients_backward_kernel[(programs,)](
            stream.contiguous(),
            grad_hidden.contiguous(),
            *(each.contiguous() for each in grad_maps),
            static.contiguous(),
            gates.contiguous(),
            normalised,
            inverse,
            raw,
            radial,
            partial,
            sizes.tokens,
            sizes.width,
            iterations,
            n=n,
            QP=rows,
            NP=columns,
            HC=hc,
            BT=block.tokens,
            BC=block.channels,
            LANES=block.channels // blocks.ELEMENTS,
            num_warps=blocks.warps(sizes.n),
        )
    of_static, of_gates = partial.sum(0)
    of_rows = of_gates.sum(1)
    if hc:
        return raw, radial, of_static, torch.stack([of_rows[0] + of_rows[2:].sum(), of_rows[1]])
    return raw, radial, of_static, torch.stack([of_rows[0], of_rows[1], of_rows[2:].sum()])


def stream_gradient(
    stream: Tensor,
    weight: Tensor,
    raw: Tensor,
    radial: Tensor,
    read: tuple[Tensor, Tensor, Tensor] | None,
    hc: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of the streams and of the weight; `read` are grad_through, grad_hidden and pre."""
    sizes = sizes_of(stream)
    length = len(weight)
    block, share = blocks.gradient_blocks(sizes)
    shares = triton.cdiv(sizes.tokens, share)
    grad_stream = torch.empty_like(stream, memory_format=torch.contiguous_format)
    shape = (shares, sizes.n, *weight.shape) if hc else (shares, 1, *weight.shape)
    partial = weight.new_empty(shape)
    through, hidden, pre = read or (stream, stream, radial)
    with on(stream):
        stream_gradient_kernel[(sizes.n * triton.cdiv(sizes.width, block.channels), shares)](
            stream.contiguous(),
            through.contiguous(),
            hidden.contiguous(),
            pre.contiguous(),
            raw.contiguous(),
            radial.contiguous(),
            weight.contiguous(),
            grad_stream,
            partial,
            sizes.tokens,
            sizes.width,
            share,
            n=sizes.n,
            K=length,
            KP=max(16, triton.next_power_of_2(length)),
            HC=hc,
            READ=read is not None,
            BT=block.tokens,
            BC=block.channels,
            PRECISION=PRECISION,
            num_warps=blocks.warps(sizes.n),
        )
    return grad_stream, partial.sum((0, 1))


def project(stream: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The normalised projection [..., K] and the inverse RMS [...]."""
    sizes = sizes_of(stream)
    *lead, _, _ = stream.shape
    length = len(weight)
    normalised = stream.new_empty(*lead, length, dtype=torch.float32)
    inverse = stream.new_empty(lead, dtype=torch.float32)
    block = blocks.product_blocks(sizes)
    with on(stream):
        projection_kernel[(triton.cdiv(sizes.tokens, block.tokens),)](
            stream.contiguous(),
            weight.contiguous(),
            normalised,
            inverse,
            sizes.tokens,
            sizes.n * sizes.width,
            epsilon,
            K=length,
            KP=max(16, triton.next_power_of_2(length)),
            BT=block.tokens,
            BC=block.channels,
            PRECISION=PRECISION,
            num_warps=blocks.warps(sizes.n),
        )
    return normalised, inverse


def aggregate(stream: Tensor, pre: Tensor) -> Tensor:
    """H_pre x [..., C] in the dtype of the streams."""
    sizes = sizes_of(stream)
    *lead, _, width = stream.shape
    hidden = stream.new_empty(*lead, width)
    block = blocks.mixing_blocks(sizes)
    grid = triton.cdiv(sizes.tokens, block.tokens), triton.cdiv(width, block.channels)
    with on(stream):
        aggregate_kernel[grid](
            stream.contiguous(),
            pre.contiguous(),
            hidden,
            sizes.tokens,
            width,
            n=sizes.n,
            BT=block.tokens,
            BC=block.channels,
            num_warps=blocks.warps(sizes.n),
        )
    return hidden


def aggregate_backward(stream: Tensor, pre: Tensor, grad_hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the streams and of pre."""
    sizes = sizes_of(stream)
    grad_stream = torch.empty_like(stream, memory_format=torch.contiguous_format)
    grad_pre = torch.empty_like(pre, memory_format=torch.contiguous_format)
    block = blocks.mixing_blocks(sizes)
    with on(stream):
        aggregate_backward_kernel[(triton.cdiv(sizes.tokens, block.tokens),)](
            stream.contiguous(),
            pre.contiguous(),
            grad_hidden.contiguous(),
            grad_stream,
            grad_pre,
            sizes.tokens,
            sizes.width,
            n=sizes.n,
            BT=block.tokens,
            BC=block.channels,
            LANES=block.channels // blocks.ELEMENTS,
            num_warps=blocks.warps(sizes.n),
        )
    return grad_stream, grad_pre


def write(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    """H_res x + H_post^T F in the dtype of the streams."""
    sizes = sizes_of(stream)
    written = torch.empty_like(stream, memory_format=torch.contiguous_format)
    block = blocks.mixing_blocks(sizes)
    grid = triton.cdiv(sizes.tokens, block.tokens), triton.cdiv(sizes.width, block.channels)
    with on(stream):
        write_kernel[grid](
            stream.contiguous(),
            update.contiguous(),
            post.contiguous(),
            res.contiguous(),
            written,
            sizes.tokens,
            sizes.width,
            n=sizes.n,
            BT=block.tokens,
            BC=block.channels,
            num_warps=blocks.warps(sizes.n),
        )
    return written


def write_backward(
    stream: Tensor, update: Tensor, post: Tensor, res: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of stream, update, post and res."""
    sizes = sizes_of(stream)
    given = [each.contiguous() for each in (stream, update, post, res)]
    grads = [torch.empty_like(each) for each in given]
    block = blocks.mixing_blocks(sizes)
    with on(stream):
        write_backward_kernel[(triton.cdiv(sizes.tokens, block.tokens),)](
            *given,
            grad.contiguous(),
            *grads,
            sizes.tokens,
            sizes.width,
            n=sizes.n,
            BT=block.tokens,
            BC=block.channels,
            LANES=block.channels // blocks.ELEMENTS,
            num_warps=blocks.warps(sizes.n),
        )
    of_stream, of_update, of_post, of_res = grads
    return of_stream, of_update, of_post, of_res


def write_coefficients(
    stream: Tensor,
    update: Tensor,
    post: Tensor,
    res: Tensor,
    weight: Tensor,
    static: Tensor,
    gates: Tensor,
    iterations: int,
    epsilon: float,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`write`, and `coefficients` of what was written."""
    sizes = sizes_of(stream)
    written = torch.empty_like(stream, memory_format=torch.contiguous_format)
    maps, kept = maps_like(stream), tables_like(stream)
    rows, columns = table_shape(sizes.n)
    block = blocks.write_read_blocks(sizes)
    with on(stream):
        write_coefficients_kernel[(triton.cdiv(sizes.tokens, block.tokens),)](
            stream.contiguous(),
            update.contiguous(),
            post.contiguous(),
            res.contiguous(),
            written,
            weight.contiguous(),
            static.contiguous(),
            gates.contiguous(),
            *kept,
            *maps,
            sizes.tokens,
            sizes.width,
            epsilon,
            iterations,
            n=sizes.n,
            QP=rows,
            NP=columns,
            HC=hc,
            BT=block.tokens,
            BC=block.channels,
            PRECISION=PRECISION,
            num_warps=8,
        )
    return written, *maps, *kept

"""The gradient of the streams that a read saw, from all who use them, and of the projection's weight."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.tiles import load_tile


@triton.jit(do_not_specialize=["tokens", "share"])
def stream_gradient_kernel(
    stream: tl.tensor,
    raw: tl.tensor,
    weight: tl.tensor,
    grad_through: tl.tensor | None,
    grad_hidden: tl.tensor | None,
    pre: tl.tensor | None,
    radial: tl.tensor | None,
    grad_stream: tl.tensor | None,
    partial: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    share: tl.tensor,
    n: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    HC: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """BC channels of one stream, for `share` tokens.

    grad_stream = grad_through + pre (x) grad_hidden + raw weight + radial stream, in one pass. Traffic: reads
    2n + 1, writes n; without `grad_through` only the last two terms: n and n; without `grad_stream` it is
    not computed: reads n. The sum over these tokens of raw^T stream goes to `partial`, one for each share:
    [shares, K, n * C], HC's [shares, n, K, C], whose sum over the first axes is the weight's gradient.
    """
    blocks = tl.cdiv(width, BC)
    j = tl.program_id(0) // blocks
    c = (tl.program_id(0) % blocks) * BC + tl.arange(0, BC)
    part = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, KP)
    there = (k < K)[:, None] & (c < width)[None, :]
    if HC:
        entries, index, length, row, total = n * K, k * n + j, width, k, (part * n + j) * K * width
    else:
        entries, index, length, row, total = K, k, n * width, k, part * K * n * width + j * width
    own = row[:, None] * length + c[None, :]
    w = tl.load(weight + own + (0 if HC else j * width), mask=there, other=0.0)
    of_weight = tl.zeros([KP, BC], tl.float32)
    for first in range(part * share, tl.minimum((part + 1) * share, tokens), BT):
        t = first + tl.arange(0, BT).to(tl.int64)
        live = t < tokens
        here = live[:, None] & (c < width)[None, :]
        x = load_tile(stream, t * n + j, c, here, width)
        r = tl.load(
            raw + t[:, None] * entries + index[None, :], mask=live[:, None] & (k < K)[None, :], other=0.0
        )
        if grad_stream is not None:
            grad = tl.load(radial + t * n + j, mask=live, other=0.0)[:, None] * x
            if grad_through is not None:
                grad += load_tile(grad_through, t * n + j, c, here, width)
                read = tl.load(pre + t * n + j, mask=live, other=0.0)
                grad += read[:, None] * load_tile(grad_hidden, t, c, here, width)
            grad = tl.dot(r, w, grad, input_precision=PRECISION)
            entry = grad_stream + (t * n + j)[:, None] * width + c[None, :]
            tl.store(entry, grad.to(grad_stream.dtype.element_ty), mask=here)
        of_weight = tl.dot(tl.trans(r), x, of_weight, input_precision=PRECISION)
    tl.store(partial + total + own, of_weight, mask=there)

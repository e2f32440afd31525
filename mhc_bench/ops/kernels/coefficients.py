"""Projection, RMS and maps of every token in one launch; and from the maps' gradient to the projection's."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.maps import activate_backward, load_static, store_coefficients
from mhc_bench.ops.kernels.tiles import (
    channel_sum,
    in_column,
    load_maps,
    load_tile,
    table_mask,
    table_offsets,
)


@triton.jit
def add_stream(
    raw: tl.tensor,
    squares: tl.tensor,
    x: tl.tensor,
    j: tl.tensor,
    c: tl.tensor,
    weight: tl.tensor,
    width: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The projection [BT, KP] and sums of squares [BT, NP] with channels `c` of stream j added: x [BT, BC].

    `weight` is mHC's [n * (2 + n), n * C], or HC's [2 + n, C] that each column of the table applies to its
    own stream.
    """
    k = tl.arange(0, QP * NP)
    q, column = k // NP, k % NP
    live = (q < 2 + n) & (column < n)
    if HC:
        entry = weight + q[None, :] * width + c[:, None]
        live = live & (column == j)
    else:
        entry = weight + (q * n + column)[None, :] * (n * width) + j * width + c[:, None]
    w = tl.load(entry, mask=live[None, :] & (c < width)[:, None], other=0.0)
    raw = tl.dot(x, w, raw, input_precision=PRECISION)
    return raw, squares + in_column(tl.sum(x * x, 1), j, NP)


@triton.jit(do_not_specialize=["tokens"])
def coefficients_kernel(
    stream: tl.tensor,
    weight: tl.tensor,
    static: tl.tensor,
    gates: tl.tensor,
    normalised: tl.tensor,
    inverse: tl.tensor,
    pre: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    epsilon: tl.tensor,
    iterations: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Maps of BT tokens. Traffic: reads n."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = t < tokens
    raw, squares = tl.zeros([BT, QP * NP], tl.float32), tl.zeros([BT, NP], tl.float32)
    blocks = tl.cdiv(width, BC)
    for block in range(n * blocks):
        j, c = block // blocks, (block % blocks) * BC + tl.arange(0, BC)
        x = load_tile(stream, t * n + j, c, live[:, None] & (c < width)[None, :], width)
        raw, squares = add_stream(raw, squares, x, j, c, weight, width, n, QP, NP, HC, PRECISION)
    store_coefficients(
        raw,
        squares,
        t,
        live,
        static,
        gates,
        normalised,
        inverse,
        pre,
        post,
        res,
        width,
        epsilon,
        iterations,
        n,
        QP,
        NP,
        HC,
        BT,
    )


@triton.jit(do_not_specialize=["tokens"])
def coefficients_backward_kernel(
    stream: tl.tensor,
    grad_hidden: tl.tensor,
    grad_pre: tl.tensor,
    grad_post: tl.tensor,
    grad_res: tl.tensor,
    static: tl.tensor,
    gates: tl.tensor,
    normalised: tl.tensor,
    inverse: tl.tensor,
    raw: tl.tensor,
    radial: tl.tensor,
    partial: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    iterations: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    """What the stream's gradient takes of the projection, for BT tokens. Traffic: reads n + 1.

    Stores the gradient of the projection of the streams as they are (`raw` [N, 2 + n, n]), the factor of
    each stream itself (`radial` [N, n]: what the RMS adds), and this program's sums over its tokens for
    biases and gates (`partial` [programs, 2, 2 + n, n]). The pre map's gradient gets <x, dh> first.
    """
    program = tl.program_id(0)
    t = program.to(tl.int64) * BT + tl.arange(0, BT)
    live = t < tokens
    products = ()
    for _ in tl.static_range(n):
        products = products + (tl.zeros([BT, LANES], tl.float32),)
    for first in range(0, width, BC):
        c = first + tl.arange(0, BC)
        here = live[:, None] & (c < width)[None, :]
        above = load_tile(grad_hidden, t, c, here, width)
        more = ()
        for j in tl.static_range(n):
            x = load_tile(stream, t * n + j, c, here, width)
            more = more + (products[j] + channel_sum(x * above, BT, BC, LANES),)
        products = more
    read = tl.zeros([BT, NP], tl.float32)
    for j in tl.static_range(n):
        read += in_column(tl.sum(products[j], 1), j, NP)
    q, j = tl.arange(0, QP)[None, :, None], tl.arange(0, NP)[None, :]
    grad = load_maps(grad_pre, grad_post, grad_res, t, live, n, QP, NP)
    grad = tl.where(q == 0, grad + read[:, None, :], grad)
    here, where = table_mask(live, n, QP, NP), table_offsets(t, n, QP, NP)
    table = tl.load(normalised + where, mask=here, other=0.0)
    scale = tl.load(inverse + t[:, None] * n + j, mask=live[:, None] & (j < n), other=0.0)
    bias, gate = load_static(static, gates, n, QP, NP, HC)
    change, of_bias, of_gate = activate_backward(table, grad, bias, gate, iterations, n, QP, NP, HC)
    change = tl.where(here, change, 0.0)
    tl.store(raw + where, change * scale[:, None, :], mask=here)
    along = tl.sum(change * table, 1)
    along = along / width if HC else tl.sum(along, 1)[:, None] / (width * n)
    tl.store(radial + t[:, None] * n + j, -along * scale * scale, mask=live[:, None] & (j < n))
    own = partial + table_offsets(program.to(tl.int64) * 2 + tl.arange(0, 1), n, QP, NP)
    there = table_mask(tl.full([1], 1, tl.int1), n, QP, NP)
    tl.store(own, tl.sum(tl.where(here, of_bias, 0.0), 0)[None, :, :], mask=there)
    tl.store(own + n * (2 + n), tl.sum(tl.where(here, of_gate, 0.0), 0)[None, :, :], mask=there)

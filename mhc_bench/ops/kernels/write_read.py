"""A write, and the next sublayer's projection and maps from what it writes, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.coefficients import add_stream
from mhc_bench.ops.kernels.maps import store_coefficients
from mhc_bench.ops.kernels.tiles import load_tile
from mhc_bench.ops.kernels.write import load_column, load_streams, mixed


@triton.jit(do_not_specialize=["tokens"])
def write_coefficients_kernel(
    stream: tl.tensor,
    update: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    written: tl.tensor,
    weight: tl.tensor,
    static: tl.tensor,
    gates: tl.tensor,
    next_normalised: tl.tensor,
    next_inverse: tl.tensor,
    next_pre: tl.tensor,
    next_post: tl.tensor,
    next_res: tl.tensor,
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
    """BT tokens. Traffic: reads n + 1, writes n: the projection costs none.

    What is projected are the streams as they are stored, rounded to their dtype.
    """
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = t < tokens
    raw, squares = tl.zeros([BT, QP * NP], tl.float32), tl.zeros([BT, NP], tl.float32)
    for first in range(0, width, BC):
        c = first + tl.arange(0, BC)
        here = live[:, None] & (c < width)[None, :]
        added = load_tile(update, t, c, here, width)
        streams = load_streams(stream, t, c, here, width, n)
        # a loop that is not unrolled holds one row of H_res and prefetches one weight
        for o in range(n):
            share = tl.load(post + t * n + o, mask=live, other=0.0)
            row = load_column(res, t * n + o, live, n)
            rounded = mixed(streams, added, share, row, n).to(written.dtype.element_ty)
            tl.store(written + (t * n + o)[:, None] * width + c[None, :], rounded, mask=here)
            x = rounded.to(tl.float32)
            raw, squares = add_stream(raw, squares, x, o, c, weight, width, n, QP, NP, HC, PRECISION)
    store_coefficients(
        raw,
        squares,
        t,
        live,
        static,
        gates,
        next_normalised,
        next_inverse,
        next_pre,
        next_post,
        next_res,
        width,
        epsilon,
        iterations,
        n,
        QP,
        NP,
        HC,
        BT,
    )

"""The backward pass of a write and of the read that follows, in one pass over the streams."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.tiles import load_tile
from mhc_bench.ops.kernels.write import load_column, load_streams, mixed


@triton.jit
def written_gradient(
    grad_written: tl.tensor,
    above: tl.tensor,
    next_pre: tl.tensor,
    raw: tl.tensor,
    radial: tl.tensor,
    weight: tl.tensor,
    x: tl.tensor,
    o: tl.tensor,
    t: tl.tensor,
    c: tl.tensor,
    live: tl.tensor,
    width: tl.tensor,
    n: tl.constexpr,
    K: tl.constexpr,
    HC: tl.constexpr,
) -> tl.tensor:
    """[BT, BC]: grad_written + next_pre (x) grad_hidden + radial x + raw weight, of written stream o.

    `x` is that stream and `above` the tile of grad_hidden. The product with the K rows of the weight is
    summed row by row: a tensor core would want its result in a layout in which every thread holds several
    tokens' maps, and that spills at eight streams.
    """
    here = live[:, None] & (c < width)[None, :]
    grad = load_tile(grad_written, t * n + o, c, here, width)
    grad += tl.load(next_pre + t * n + o, mask=live, other=0.0)[:, None] * above
    grad += tl.load(radial + t * n + o, mask=live, other=0.0)[:, None] * x
    for k in range(K):
        entry, row = (k * n + o, k * width) if HC else (k, (k * n + o) * width)
        factor = tl.load(raw + t * (n * (2 + n)) + entry, mask=live, other=0.0)
        grad += factor[:, None] * tl.load(weight + row + c, mask=c < width, other=0.0)[None, :]
    return grad


@triton.jit(do_not_specialize=["tokens", "share"])
def write_read_backward_kernel(
    stream: tl.tensor,
    update: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    grad_written: tl.tensor,
    grad_hidden: tl.tensor,
    next_pre: tl.tensor,
    raw: tl.tensor,
    radial: tl.tensor,
    weight: tl.tensor,
    grad_stream: tl.tensor,
    grad_update: tl.tensor,
    partial_post: tl.tensor,
    partial_res: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    share: tl.tensor,
    n: tl.constexpr,
    K: tl.constexpr,
    HC: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
) -> None:
    """BC channels of all streams, for `share` tokens. Traffic: reads 2n + 2, writes n + 1.

    What was written is made again from what it was made of, rounded as it was stored. Its whole gradient
    (`written_gradient`) lives in registers, one output stream at a time, where it becomes the gradients of
    the stream and of the update and these channels' part of those of post and res: `partial_post` [blocks
    of channels, N, n] and `partial_res` [blocks of channels, N, n, n].
    """
    block = tl.program_id(0)
    c = block * BC + tl.arange(0, BC)
    part = tl.program_id(1).to(tl.int64)
    for first in range(part * share, tl.minimum((part + 1) * share, tokens), BT):
        t = first + tl.arange(0, BT).to(tl.int64)
        live = t < tokens
        here = live[:, None] & (c < width)[None, :]
        added = load_tile(update, t, c, here, width)
        above = load_tile(grad_hidden, t, c, here, width)
        streams = load_streams(stream, t, c, here, width, n)
        down = tl.zeros([BT, BC], tl.float32)
        back = ()
        for _ in tl.static_range(n):
            back = back + (tl.zeros([BT, BC], tl.float32),)
        place = (block.to(tl.int64) * tokens + t) * n
        # a loop that is not unrolled holds one row of H_res
        for o in range(n):
            own = tl.load(post + t * n + o, mask=live, other=0.0)
            row = load_column(res, t * n + o, live, n)
            x = mixed(streams, added, own, row, n).to(stream.dtype.element_ty).to(tl.float32)
            grad = written_gradient(
                grad_written, above, next_pre, raw, radial, weight, x, o, t, c, live, width, n, K, HC
            )
            down += own[:, None] * grad
            tl.store(partial_post + place + o, tl.sum(grad * added, 1), mask=live)
            more = ()
            for i in tl.static_range(n):
                tl.store(partial_res + (place + o) * n + i, tl.sum(grad * streams[i], 1), mask=live)
                more = more + (back[i] + row[i][:, None] * grad,)
            back = more
        entry = grad_update + t[:, None] * width + c[None, :]
        tl.store(entry, down.to(grad_update.dtype.element_ty), mask=here)
        for i in tl.static_range(n):
            entry = grad_stream + (t * n + i)[:, None] * width + c[None, :]
            tl.store(entry, back[i].to(grad_stream.dtype.element_ty), mask=here)

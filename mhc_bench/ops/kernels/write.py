"""H_res x + H_post^T F, forward and backward."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.tiles import channel_sum, load_tile


@triton.jit
def load_column(pointer: tl.tensor, t: tl.tensor, live: tl.tensor, COUNT: tl.constexpr) -> tl.tensor:
    """A tuple of COUNT blocks [BT]: the entries of each token's row of a [N, COUNT] tensor."""
    entries = ()
    for k in tl.static_range(COUNT):
        entries = entries + (tl.load(pointer + t * COUNT + k, mask=live, other=0.0),)
    return entries


@triton.jit
def load_streams(
    stream: tl.tensor, t: tl.tensor, c: tl.tensor, here: tl.tensor, width: tl.tensor, n: tl.constexpr
) -> tl.tensor:
    """A tuple of the n streams' tiles [BT, BC]."""
    tiles = ()
    for j in tl.static_range(n):
        tiles = tiles + (load_tile(stream, t * n + j, c, here, width),)
    return tiles


@triton.jit
def mixed(
    streams: tl.tensor, added: tl.tensor, share: tl.tensor, row: tl.tensor, n: tl.constexpr
) -> tl.tensor:
    """An output stream [BT, BC] from the tiles of the streams, its entry of post [BT] and its row of res, a
    tuple of n blocks [BT]."""
    total = share[:, None] * added
    for i in tl.static_range(n):
        total += row[i][:, None] * streams[i]
    return total


@triton.jit(do_not_specialize=["tokens"])
def write_kernel(
    stream: tl.tensor,
    update: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    written: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    n: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
) -> None:
    """BC channels of BT tokens. Traffic: reads n + 1, writes n."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    live = t < tokens
    here = live[:, None] & (c < width)[None, :]
    added = load_tile(update, t, c, here, width)
    streams = load_streams(stream, t, c, here, width, n)
    for o in tl.static_range(n):
        share = tl.load(post + t * n + o, mask=live, other=0.0)
        total = mixed(streams, added, share, load_column(res, t * n + o, live, n), n)
        entry = written + (t * n + o)[:, None] * width + c[None, :]
        tl.store(entry, total.to(written.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["tokens"])
def write_backward_kernel(
    stream: tl.tensor,
    update: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    grad: tl.tensor,
    grad_stream: tl.tensor,
    grad_update: tl.tensor,
    grad_post: tl.tensor,
    grad_res: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    n: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    """All four gradients of BT tokens. Traffic: reads 2n + 1, writes n + 1."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = t < tokens
    posts, mixes = load_column(post, t, live, n), load_column(res, t, live, n * n)
    of_post, of_res = (), ()
    for _ in tl.static_range(n):
        of_post = of_post + (tl.zeros([BT, LANES], tl.float32),)
    for _ in tl.static_range(n * n):
        of_res = of_res + (tl.zeros([BT, LANES], tl.float32),)
    for first in range(0, width, BC):
        c = first + tl.arange(0, BC)
        here = live[:, None] & (c < width)[None, :]
        added = load_tile(update, t, c, here, width)
        grads = load_streams(grad, t, c, here, width, n)
        streams = load_streams(stream, t, c, here, width, n)
        down = tl.zeros([BT, BC], tl.float32)
        more_post, more_res = (), ()
        for o in tl.static_range(n):
            down += posts[o][:, None] * grads[o]
            more_post = more_post + (of_post[o] + channel_sum(grads[o] * added, BT, BC, LANES),)
            for i in tl.static_range(n):
                product = channel_sum(grads[o] * streams[i], BT, BC, LANES)
                more_res = more_res + (of_res[o * n + i] + product,)
        of_post, of_res = more_post, more_res
        entry = grad_update + t[:, None] * width + c[None, :]
        tl.store(entry, down.to(grad_update.dtype.element_ty), mask=here)
        for i in tl.static_range(n):
            total = tl.zeros([BT, BC], tl.float32)
            for o in tl.static_range(n):
                total += mixes[o * n + i][:, None] * grads[o]
            entry = grad_stream + (t * n + i)[:, None] * width + c[None, :]
            tl.store(entry, total.to(grad_stream.dtype.element_ty), mask=here)
    for o in tl.static_range(n):
        tl.store(grad_post + t * n + o, tl.sum(of_post[o], 1), mask=live)
        for i in tl.static_range(n):
            tl.store(grad_res + t * n * n + o * n + i, tl.sum(of_res[o * n + i], 1), mask=live)

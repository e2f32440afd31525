"""H_pre x, forward and backward."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.tiles import channel_sum, load_tile


@triton.jit(do_not_specialize=["tokens"])
def aggregate_kernel(
    stream: tl.tensor,
    pre: tl.tensor,
    hidden: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    n: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
) -> None:
    """BC channels of BT tokens. Traffic: reads n, writes 1."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    live = t < tokens
    here = live[:, None] & (c < width)[None, :]
    total = tl.zeros([BT, BC], tl.float32)
    for j in tl.static_range(n):
        share = tl.load(pre + t * n + j, mask=live, other=0.0)
        total += share[:, None] * load_tile(stream, t * n + j, c, here, width)
    entry = hidden + t[:, None] * width + c[None, :]
    tl.store(entry, total.to(hidden.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["tokens"])
def aggregate_backward_kernel(
    stream: tl.tensor,
    pre: tl.tensor,
    grad_hidden: tl.tensor,
    grad_stream: tl.tensor,
    grad_pre: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    n: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    """Both gradients of BT tokens. Traffic: reads n + 1, writes n."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = t < tokens
    shares, products = (), ()
    for j in tl.static_range(n):
        shares = shares + (tl.load(pre + t * n + j, mask=live, other=0.0),)
        products = products + (tl.zeros([BT, LANES], tl.float32),)
    for first in range(0, width, BC):
        c = first + tl.arange(0, BC)
        here = live[:, None] & (c < width)[None, :]
        above = load_tile(grad_hidden, t, c, here, width)
        more = ()
        for j in tl.static_range(n):
            x = load_tile(stream, t * n + j, c, here, width)
            more = more + (products[j] + channel_sum(x * above, BT, BC, LANES),)
            entry = grad_stream + (t * n + j)[:, None] * width + c[None, :]
            tl.store(entry, (shares[j][:, None] * above).to(grad_stream.dtype.element_ty), mask=here)
        products = more
    for j in tl.static_range(n):
        tl.store(grad_pre + t * n + j, tl.sum(products[j], 1), mask=live)

"""The RMS-normalised projection alone, for maps that are made from it elsewhere."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels.tiles import load_tile


@triton.jit(do_not_specialize=["tokens"])
def projection_kernel(
    rows: tl.tensor,
    weight: tl.tensor,
    normalised: tl.tensor,
    inverse: tl.tensor,
    tokens: tl.tensor,
    length: tl.tensor,
    epsilon: tl.tensor,
    K: tl.constexpr,
    KP: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """x / rms(x) times `weight` [K, length] transposed, for BT rows [length]. Traffic: reads n."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live, k = t < tokens, tl.arange(0, KP)
    raw, squares = tl.zeros([BT, KP], tl.float32), tl.zeros([BT], tl.float32)
    for first in range(0, length, BC):
        c = first + tl.arange(0, BC)
        x = load_tile(rows, t, c, live[:, None] & (c < length)[None, :], length)
        entry = weight + k[None, :] * length + c[:, None]
        w = tl.load(entry, mask=(k < K)[None, :] & (c < length)[:, None], other=0.0)
        raw = tl.dot(x, w, raw, input_precision=PRECISION)
        squares += tl.sum(x * x, 1)
    scale = 1.0 / tl.sqrt(squares / length + epsilon)
    tl.store(inverse + t, scale, mask=live)
    there = live[:, None] & (k < K)[None, :]
    tl.store(normalised + t[:, None] * K + k[None, :], raw * scale[:, None], mask=there)

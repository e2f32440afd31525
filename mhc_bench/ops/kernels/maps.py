"""From a token's projection to its maps and back, on the table [BT, QP, NP] (see `tiles`)."""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops.kernels import sinkhorn
from mhc_bench.ops.kernels.tiles import store_maps, table_mask, table_offsets


@triton.jit
def tanh(x: tl.tensor) -> tl.tensor:
    """(1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x."""
    e = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -size, size)


@triton.jit
def inverse_rms(
    squares: tl.tensor,
    width: tl.tensor,
    epsilon: tl.tensor,
    n: tl.constexpr,
    HC: tl.constexpr,
) -> tl.tensor:
    """[BT, NP] from the streams' sums of squares: HC's of each stream, mHC's one of all in every column."""
    if HC:
        return 1.0 / tl.sqrt(squares / width + epsilon)
    mean = tl.sum(squares, 1) / (width * n)
    return (1.0 / tl.sqrt(mean + epsilon))[:, None] + 0.0 * squares


@triton.jit
def load_static(
    static: tl.tensor,
    gates: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
) -> tl.tensor:
    """Biases and gates as tables [1, QP, NP]. mHC has a gate for pre, post and res; HC's res has pre's."""
    q, j = tl.arange(0, QP)[None, :, None], tl.arange(0, NP)[None, None, :]
    live = (q < 2 + n) & (j < n)
    gate = tl.where(q == 1, 1, 0) if HC else tl.minimum(q, 2)
    return (
        tl.load(static + q * n + j, mask=live, other=0.0),
        tl.load(gates + gate + 0 * j, mask=live, other=0.0),
    )


@triton.jit
def activate(
    normalised: tl.tensor,
    bias: tl.tensor,
    gate: tl.tensor,
    iterations: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
) -> tl.tensor:
    """The maps."""
    if HC:
        return tanh(normalised) * gate + bias
    q, j = tl.arange(0, QP), tl.arange(0, NP)
    rows, columns = ((q >= 2) & (q < 2 + n))[None, :], (j < n)[None, :]
    logits = normalised * gate + bias
    mixed = sinkhorn.forward(logits, rows[:, :, None] & columns[:, None, :], columns, rows, iterations)
    peak = tl.where(q == 1, 2.0, 1.0)[None, :, None]
    return tl.where((q < 2)[None, :, None], peak * tl.sigmoid(logits), mixed)


@triton.jit
def activate_backward(
    normalised: tl.tensor,
    grad: tl.tensor,
    bias: tl.tensor,
    gate: tl.tensor,
    iterations: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
) -> tl.tensor:
    """Gradients, from that of the maps: of the normalised projection, of the bias, and of the gate of each
    entry."""
    if HC:
        dynamic = tanh(normalised)
        return grad * gate * (1.0 - dynamic * dynamic), grad, grad * dynamic
    q, j = tl.arange(0, QP), tl.arange(0, NP)
    rows, columns = ((q >= 2) & (q < 2 + n))[None, :], (j < n)[None, :]
    logits = normalised * gate + bias
    mixed = sinkhorn.backward(logits, grad, rows[:, :, None] & columns[:, None, :], columns, rows, iterations)
    peak, sigma = tl.where(q == 1, 2.0, 1.0)[None, :, None], tl.sigmoid(logits)
    grad = tl.where((q < 2)[None, :, None], grad * peak * sigma * (1.0 - sigma), mixed)
    return grad * gate, grad, grad * normalised


@triton.jit
def store_coefficients(
    raw: tl.tensor,
    squares: tl.tensor,
    t: tl.tensor,
    live: tl.tensor,
    static: tl.tensor,
    gates: tl.tensor,
    normalised: tl.tensor,
    inverse: tl.tensor,
    pre: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    width: tl.tensor,
    epsilon: tl.tensor,
    iterations: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
    HC: tl.constexpr,
    BT: tl.constexpr,
) -> None:
    """Maps from the projection `raw` [BT, KP] of the streams as they are; stores what backward needs too."""
    j = tl.arange(0, NP)[None, :]
    scale = inverse_rms(squares, width, epsilon, n, HC)
    tl.store(inverse + t[:, None] * n + j, scale, mask=live[:, None] & (j < n))
    table = tl.reshape(raw, [BT, QP, NP]) * scale[:, None, :]
    tl.store(normalised + table_offsets(t, n, QP, NP), table, mask=table_mask(live, n, QP, NP))
    bias, gate = load_static(static, gates, n, QP, NP, HC)
    maps = activate(table, bias, gate, iterations, n, QP, NP, HC)
    store_maps(pre, post, res, maps, t, live, n, QP, NP)

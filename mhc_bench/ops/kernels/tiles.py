"""What several kernels need: a token's numbers as blocks, sums over channels, the table of its maps.

Legend of the block shapes: BT tokens, BC channels, QP >= 2 + n rows and NP >= n columns of a token's maps,
KP = QP * NP, all powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def channel_sum(x: tl.tensor, BT: tl.constexpr, BC: tl.constexpr, LANES: tl.constexpr) -> tl.tensor:
    """[BT, BC] to partial sums [BT, LANES] over neighbouring channels, which lie in one thread."""
    return tl.sum(tl.reshape(x, [BT, LANES, BC // LANES]), 2)


@triton.jit
def load_tile(
    pointer: tl.tensor, row: tl.tensor, c: tl.tensor, live: tl.tensor, width: tl.tensor
) -> tl.tensor:
    """[BT, BC] in fp32: channels `c` of the rows of a [rows, C] tensor; 0 where not `live`."""
    return tl.load(pointer + row[:, None] * width + c[None, :], mask=live, other=0.0).to(tl.float32)


@triton.jit
def in_column(values: tl.tensor, j: tl.tensor, NP: tl.constexpr) -> tl.tensor:
    """[BT] as column j of a [BT, NP] that is 0 elsewhere."""
    return tl.where(tl.arange(0, NP)[None, :] == j, values[:, None], 0.0)


@triton.jit
def load_maps(
    pre: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    t: tl.tensor,
    live: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
) -> tl.tensor:
    """[BT, QP, NP]: the table of three tensors pre [N, n], post [N, n] and res [N, n, n]."""
    q, j = tl.arange(0, QP)[None, :, None], tl.arange(0, NP)[None, None, :]
    t, live = t[:, None, None], live[:, None, None] & (j < n)
    table = tl.load(pre + t * n + j + 0 * q, mask=live & (q == 0), other=0.0)
    table += tl.load(post + t * n + j + 0 * q, mask=live & (q == 1), other=0.0)
    table += tl.load(res + t * n * n + (q - 2) * n + j, mask=live & (q >= 2) & (q < 2 + n), other=0.0)
    return table


@triton.jit
def store_maps(
    pre: tl.tensor,
    post: tl.tensor,
    res: tl.tensor,
    table: tl.tensor,
    t: tl.tensor,
    live: tl.tensor,
    n: tl.constexpr,
    QP: tl.constexpr,
    NP: tl.constexpr,
) -> None:
    """The reverse of `load_maps`."""
    q, j = tl.arange(0, QP)[None, :, None], tl.arange(0, NP)[None, None, :]
    t, live = t[:, None, None], live[:, None, None] & (j < n)
    tl.store(pre + t * n + j + 0 * q, table, mask=live & (q == 0))
    tl.store(post + t * n + j + 0 * q, table, mask=live & (q == 1))
    tl.store(res + t * n * n + (q - 2) * n + j, table, mask=live & (q >= 2) & (q < 2 + n))


@triton.jit
def table_offsets(t: tl.tensor, n: tl.constexpr, QP: tl.constexpr, NP: tl.constexpr) -> tl.tensor:
    """[BT, QP, NP]: where the table's entries lie in a [N, 2 + n, n] tensor."""
    q, j = tl.arange(0, QP)[None, :, None], tl.arange(0, NP)[None, None, :]
    return t[:, None, None] * (n * (2 + n)) + q * n + j


@triton.jit
def table_mask(live: tl.tensor, n: tl.constexpr, QP: tl.constexpr, NP: tl.constexpr) -> tl.tensor:
    """[BT, QP, NP]: which entries of the table exist, of tokens that exist."""
    q, j = tl.arange(0, QP)[None, :, None], tl.arange(0, NP)[None, None, :]
    return live[:, None, None] & (q < 2 + n) & (j < n)

"""Sinkhorn-Knopp on chip, and its exact backward pass from sums that are made again, never stored.

The semantics are those of `mhc_bench.ops.sinkhorn`: columns shifted by their maximum, entries raised to
FLOOR, the gradient of a raised entry given to its column's maximum, NaN kept. A token's matrix lies in rows
2 .. 2 + n of its table [BT, QP, NP]; everything else there is 0 and is divided by 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mhc_bench.ops import sinkhorn as eager

FLOOR = tl.constexpr(eager.FLOOR)
SEGMENT = tl.constexpr(4)
"""Rounds whose sums are held in registers at a time; earlier rounds are run again for each segment."""


@triton.jit
def start(logits: tl.tensor, mixing: tl.tensor) -> tl.tensor:
    """exp of the shifted and raised logits, which entries were raised, and which are their column's largest.

    `mixing` [1, QP, NP] says where the table holds H_res.
    """
    top = tl.max(tl.where(mixing, logits, float("-inf")), 1)
    shifted = tl.where(mixing, logits - top[:, None, :], 0.0)
    # a comparison with NaN is false, so that NaN stays
    raised = shifted < FLOOR
    matrix = tl.where(mixing, tl.exp(tl.where(raised, FLOOR, shifted)), 0.0)
    return matrix, raised, mixing & (shifted == 0.0)


@triton.jit
def column_sums(matrix: tl.tensor, applies: tl.tensor) -> tl.tensor:
    """[BT, NP]; 1 where there is no column."""
    return tl.where(applies, tl.sum(matrix, 1), 1.0)


@triton.jit
def row_sums(matrix: tl.tensor, applies: tl.tensor) -> tl.tensor:
    """[BT, QP]; 1 where there is no row."""
    return tl.where(applies, tl.sum(matrix, 2), 1.0)


@triton.jit
def rounds(matrix: tl.tensor, count: tl.tensor, columns: tl.tensor, rows: tl.tensor) -> tl.tensor:
    """`count` rounds: columns and then rows divided by their sums."""
    for _ in range(count):
        matrix *= (1.0 / column_sums(matrix, columns))[:, None, :]
        matrix *= (1.0 / row_sums(matrix, rows))[:, :, None]
    return matrix


@triton.jit
def forward(
    logits: tl.tensor, mixing: tl.tensor, columns: tl.tensor, rows: tl.tensor, iterations: tl.tensor
) -> tl.tensor:
    """[BT, QP, NP]: H_res in its rows, 0 elsewhere; `columns` [1, NP] and `rows` [1, QP] say where."""
    matrix, _, _ = start(logits, mixing)
    return rounds(matrix, iterations, columns, rows)


@triton.jit
def backward(
    logits: tl.tensor,
    grad: tl.tensor,
    mixing: tl.tensor,
    columns: tl.tensor,
    rows: tl.tensor,
    iterations: tl.tensor,
) -> tl.tensor:
    """The gradient of the logits from that of H_res, 0 outside its rows.

    In terms of g = dL/dlog(y) a step y = x / sum(x) has the backward g_x = g - y sum(g), and y is rebuilt
    from the matrix after it by multiplying the sums back. The sums of a segment are held in registers.
    """
    first_matrix, raised, largest = start(logits, mixing)
    grad = tl.where(mixing, grad, 0.0)
    segments = tl.cdiv(iterations, SEGMENT)
    for done in range(segments):
        first = (segments - 1 - done) * SEGMENT
        matrix = rounds(first_matrix, first, columns, rows)
        by_column, by_row = (), ()
        for k in tl.static_range(SEGMENT):
            by_column = by_column + (column_sums(matrix, columns & (first + k < iterations)),)
            matrix *= (1.0 / by_column[k])[:, None, :]
            by_row = by_row + (row_sums(matrix, rows & (first + k < iterations)),)
            matrix *= (1.0 / by_row[k])[:, :, None]
        if done == 0:
            grad *= matrix
        for k in tl.static_range(SEGMENT - 1, -1, -1):
            happened = first + k < iterations
            grad -= matrix * tl.where(happened, tl.sum(grad, 2), 0.0)[:, :, None]
            matrix *= by_row[k][:, :, None]
            grad -= matrix * tl.where(happened, tl.sum(grad, 1), 0.0)[:, None, :]
            matrix *= by_column[k][:, None, :]
    lost = tl.sum(tl.where(raised, grad, 0.0), 1) / tl.maximum(tl.sum(largest.to(tl.float32), 1), 1.0)
    return tl.where(raised, 0.0, grad) + tl.where(largest, lost[:, None, :], 0.0)

"""Sinkhorn-Knopp with an exact hand-written backward; each step is one long vector operation.

Shape legend: n streams, N tokens. Tokens come last, [n out, n in, N], so that sums over out or in and the
divisions by them run over contiguous tokens. Of each round only the sums are kept, 2n numbers per token:
the backward pass rebuilds every intermediate matrix from the final one by multiplying the sums back.

Any finite logits are safe. Each column is shifted by its maximum, which the first column step cancels
exactly, and entries more than 80 below that maximum are raised to 80 below. So no row sum can underflow to
0 in fp32: e^-80 / n is a normal number, and after the first round all sums lie in [1 / n^2, n]. The
backward pass is that of the clamped function: a raised entry has gradient 0, and what would have been its
gradient goes to the column's maximum (shared where there are several), which its value now follows. A
logit of -inf counts as a very low one; NaN and +inf come out as NaN, in the result and in the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

FLOOR = -80.0
"""The least logit relative to the largest of its column."""


class SinkhornTrace(NamedTuple):
    """What the backward pass needs."""

    matrix: Tensor
    """[n, n, N], the result."""
    columns: Tensor
    """[iterations, 1, n, N], the column sums that were divided by."""
    rows: Tensor
    """[iterations, n, 1, N], the row sums that were divided by."""
    raised: Tensor
    """[n, n, N], true where the clamp raised the logit."""
    largest: Tensor
    """[n, n, N], true at the maximum of each column."""


def sinkhorn_forward(logits: Tensor, iterations: int) -> SinkhornTrace:
    """exp(logits) [n, n, N], columns and then rows divided by their sums, `iterations` times."""
    return SinkhornTrace(*torch.ops.mhc_bench_eager.sinkhorn(logits, iterations))


def sinkhorn_backward(grad: Tensor, trace: SinkhornTrace) -> Tensor:
    """The gradient of the logits [n, n, N] from that of the matrix."""
    result: Tensor = torch.ops.mhc_bench_eager.sinkhorn_backward(grad, *trace)
    return result


def _forward(logits: Tensor, iterations: int) -> SinkhornTrace:
    n, _, tokens = logits.shape
    shifted = logits - logits.amax(0, keepdim=True)
    raised, largest = shifted < FLOOR, shifted == 0
    matrix = shifted.clamp_(min=FLOOR).exp_()
    columns, rows = matrix.new_empty(iterations, 1, n, tokens), matrix.new_empty(iterations, n, 1, tokens)
    for column, row in zip(columns.unbind(), rows.unbind(), strict=True):
        torch.sum(matrix, 0, keepdim=True, out=column)
        matrix.div_(column)
        torch.sum(matrix, 1, keepdim=True, out=row)
        matrix.div_(row)
    return SinkhornTrace(matrix, columns, rows, raised, largest)


def _backward(grad: Tensor, *saved: Tensor) -> Tensor:
    """In terms of g = dL/dlog(y), a step y = x / sum(x) has the backward g_x = g - y sum(g): no division."""
    trace = SinkhornTrace(*saved)
    matrix = trace.matrix.clone()
    grad = torch.mul(grad, matrix, out=torch.empty_like(matrix))  # contiguous, whatever layout it came in
    for column, row in zip(reversed(trace.columns.unbind()), reversed(trace.rows.unbind()), strict=True):
        grad.addcmul_(matrix, grad.sum(1, keepdim=True), value=-1)
        matrix.mul_(row)
        grad.addcmul_(matrix, grad.sum(0, keepdim=True), value=-1)
        matrix.mul_(column)
    lost = (grad * trace.raised).sum(0, keepdim=True) / trace.largest.sum(0, keepdim=True)
    return grad.masked_fill_(trace.raised, 0.0).addcmul_(trace.largest.to(grad.dtype), lost)


def _forward_results(logits: Tensor, iterations: int) -> tuple[Tensor, ...]:
    """A `SinkhornTrace` of empty tensors."""
    n, _, tokens = logits.shape
    matrix, mask = logits.new_empty(n, n, tokens), logits.new_empty(n, n, tokens, dtype=torch.bool)
    columns, rows = logits.new_empty(iterations, 1, n, tokens), logits.new_empty(iterations, n, 1, tokens)
    return matrix, columns, rows, mask, torch.empty_like(mask)


def _backward_result(grad: Tensor, *saved: Tensor) -> Tensor:
    return torch.empty_like(saved[0])


def _define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """An operator for every device: torch.compile takes all rounds as one call instead of unrolling them."""
    name, tags = schema.partition("(")[0], (torch.Tag.pt2_compliant_tag,)
    _LIBRARY.define(schema, tags=tags)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"mhc_bench_eager::{name}", fake, lib=_LIBRARY)


_TRACE = "Tensor matrix, Tensor columns, Tensor rows, Tensor raised, Tensor largest"
_LIBRARY = torch.library.Library("mhc_bench_eager", "FRAGMENT")  # type: ignore[no-untyped-call]
_define(f"sinkhorn(Tensor logits, int iterations) -> ({_TRACE})", _forward, _forward_results)
_define(f"sinkhorn_backward(Tensor grad, {_TRACE}) -> Tensor", _backward, _backward_result)

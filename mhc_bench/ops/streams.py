"""Reading a hidden state from the streams and writing a sublayer's output back into them.

Shape legend: N tokens, n streams, C width. H_res is [N, out, in].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_bench.ops.precision import applied, shaped, widened, without_autocast


def weighted_sum(streams: Tensor, weights: Tensor) -> Tensor:
    """Sum over j of weights[N, j] * streams[N, j, C], as n scaled slices: bmm takes seven times as long."""
    total = streams[:, 0] * weights[:, 0:1]
    for j in range(1, streams.shape[1]):
        total.addcmul_(streams[:, j], weights[:, j : j + 1])
    return total


class _Write(torch.autograd.Function):
    """H_res x + H_post^T F with nothing kept but the inputs."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        ctx.save_for_backward(stream, update, post, res)
        x, added, post, res = _flat(stream, update, post, res)
        mixed = torch.bmm(res, x).addcmul_(post.unsqueeze(2), added.unsqueeze(1))
        return shaped(mixed.to(stream.dtype), *stream.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        stream, update, post, res = ctx.saved_tensors
        with without_autocast(grad):
            x, added, flat_post, flat_res = _flat(stream, update, post, res)
            # an expanded gradient would send bmm down its slow path
            grad = widened(grad).contiguous().view(x.shape)
            grad_stream = torch.bmm(flat_res.transpose(1, 2), grad).to(stream.dtype)
            grad_update = weighted_sum(grad, flat_post).to(update.dtype)
            grad_post = (grad * added.unsqueeze(1)).sum(2)
            grad_res = torch.bmm(grad, x.transpose(1, 2))
        return (
            grad_stream.view(stream.shape),
            grad_update.view(update.shape),
            grad_post.view(post.shape),
            grad_res.view(res.shape),
        )


def _flat(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four with one token axis, in fp32 at least."""
    n, width = stream.shape[-2:]
    return (
        widened(stream).reshape(-1, n, width),
        widened(update).reshape(-1, width),
        post.reshape(-1, n),
        res.reshape(-1, n, n),
    )


def write(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    """`reference.write`, faster: the result has the dtype of `stream`, the arithmetic is fp32 at least."""
    written: Tensor = applied(_Write, stream, update, post, res)
    return written

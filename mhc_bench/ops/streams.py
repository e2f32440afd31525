"""Reading a hidden state from the streams and writing a sublayer's output back into them.

Shape legend: N tokens, n streams, C width. `mix` is [N, n, n + 1]: H_res as [out, in], and H_post as a last column.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mhc_bench.ops.precision import widened, without_autocast


def weighted_sum(streams: Tensor, weights: Tensor) -> Tensor:
    """Sum over j of weights[N, j] * streams[N, j, C]: n scaled slices cost a seventh of a batched product here."""
    total = streams[:, 0] * weights[:, 0:1]
    for j in range(1, streams.shape[1]):
        total.addcmul_(streams[:, j], weights[:, j : j + 1])
    return total


class _Write(torch.autograd.Function):
    """[streams; update] mixed by one batched product, so that its backward is two, and nothing is kept but inputs."""

    @staticmethod
    def forward(ctx: FunctionCtx, stream: Tensor, update: Tensor, mix: Tensor) -> Tensor:
        ctx.save_for_backward(stream, update, mix)
        return torch.bmm(mix, _stacked(stream, update)).to(stream.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stream, update, mix = ctx.saved_tensors
        with without_autocast(grad):
            grad = widened(grad)
            back = torch.bmm(mix.transpose(1, 2), grad)
            grad_mix = torch.bmm(grad, _stacked(stream, update).transpose(1, 2))
        return back[:, :-1].to(stream.dtype), back[:, -1].to(update.dtype), grad_mix


def _stacked(stream: Tensor, update: Tensor) -> Tensor:
    """[N, n + 1, C]: the streams and, last, the update, in fp32 at least."""
    return torch.cat([widened(stream), widened(update).unsqueeze(1)], dim=1)


def write(stream: Tensor, update: Tensor, mix: Tensor) -> Tensor:
    """`reference.write`: [..., n, C], [..., C] and mix [..., n, n + 1] to [..., n, C] in the dtype of `stream`."""
    n, width = stream.shape[-2:]
    with without_autocast(stream):
        flat = _Write.apply(
            stream.reshape(-1, n, width), update.reshape(-1, width), mix.reshape(-1, n, n + 1)
        )
    return flat.view(stream.shape)

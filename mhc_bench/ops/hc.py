"""Hyper-Connections' read: every token's maps and the sublayer's input, with a hand-written backward.

Shape legend: N tokens, n streams, C width, K = 2 + n rows (pre, post, and one for each output stream of
res). The dynamic parts are held as [K, N, n]: row k seen by each of the token's streams.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_bench.ops.precision import applied, shaped, widened, without_autocast
from mhc_bench.ops.streams import weighted_sum


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        stream: Tensor,
        epsilon: float,
        weight: Tensor,
        static_pre: Tensor,
        static_post: Tensor,
        static_res: Tensor,
        scale_mix: Tensor,
        scale_write: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lead, (n, width) = stream.shape[:-2], stream.shape[-2:]
        x = widened(stream).reshape(-1, n, width)
        tokens = len(x)
        weight, scale = weight.to(x.dtype), torch.cat([scale_mix, scale_write]).to(x.dtype)
        inverse = torch.rsqrt(torch.linalg.vector_norm(x, dim=2).square_().div_(width).add_(epsilon))
        normalised = torch.mm(weight, x.view(tokens * n, width).T).view(-1, tokens, n).mul_(inverse)
        dynamic = torch.tanh(normalised)
        pre = torch.addcmul(static_pre, dynamic[0], scale[0])
        post = torch.addcmul(static_post, dynamic[1], scale[1])
        res = torch.addcmul(static_res, dynamic[2:].transpose(0, 1), scale[0], out=x.new_empty(tokens, n, n))
        ctx.save_for_backward(stream, weight, scale, inverse, normalised, dynamic, pre)
        hidden = weighted_sum(x, pre).to(stream.dtype)
        return (
            shaped(hidden, *lead, width),
            shaped(pre, *lead, n),
            shaped(post, *lead, n),
            shaped(res, *lead, n, n),
        )

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_hidden: Tensor, grad_pre: Tensor, grad_post: Tensor, grad_res: Tensor
    ) -> tuple[Tensor | None, ...]:
        stream, weight, scale, inverse, normalised, dynamic, pre = ctx.saved_tensors
        with without_autocast(stream):
            n, width = stream.shape[-2:]
            x = widened(stream).reshape(-1, n, width)
            tokens = len(x)
            hidden = widened(grad_hidden).reshape(tokens, 1, width)
            grad_pre, grad_post = grad_pre.reshape(tokens, n), grad_post.reshape(tokens, n)
            grad_res = grad_res.reshape(tokens, n, n)
            flat = x.view(tokens * n, width)
            grad = torch.empty_like(dynamic)
            torch.add(grad_pre, (x * hidden).sum(-1), out=grad[0])
            grad[1], grad[2:] = grad_post, grad_res.transpose(0, 1)
            grad_static = grad.sum(1)
            per_row = (grad * dynamic).sum((1, 2))
            grad_scale = (per_row[0] + per_row[2:].sum()).view(1), per_row[1:2]
            rows = torch.cat([scale, scale[:1].expand(n)]).view(-1, 1, 1)
            grad.mul_(rows).addcmul_(grad * dynamic, dynamic, value=-1)
            radial = (grad * normalised).sum(0).mul_(inverse.square()).div_(-width)
            raw = grad.mul_(inverse).view(-1, tokens * n)
            grad_x = torch.mm(raw.T, weight).addcmul_(flat, radial.view(-1, 1)).view(x.shape)
            grad_x.addcmul_(pre.unsqueeze(2), hidden)
            grad_weight = torch.mm(raw, flat)
        static = grad_static[0], grad_static[1], grad_static[2:]
        return grad_x.to(stream.dtype).view(stream.shape), None, grad_weight, *static, *grad_scale


def hc_read(
    stream: Tensor,
    weight: Tensor,
    static: tuple[Tensor, Tensor, Tensor],
    scale: tuple[Tensor, Tensor],
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`reference.hc_maps` and `reference.read` at once; the arguments are those of `reference.hc_maps`.

    Returns:
        hidden [..., C] in the dtype of `stream`; pre [..., n], post [..., n] and res [..., n, n] in fp32
        at least.
    """
    hidden, pre, post, res = applied(_Read, stream, epsilon, weight, *static, *scale)
    return hidden, pre, post, res

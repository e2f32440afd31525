"""mHC's read: every token's maps and the sublayer's input, with a hand-written backward.

Shape legend: N tokens, n streams, C width, K = 2n + n*n map entries (pre, post, res as [out, in]). Map
entries are held tokens last, [K, N], where every step is a long vector operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_bench.ops.precision import applied, shaped, widened, without_autocast
from mhc_bench.ops.sinkhorn import SinkhornTrace, sinkhorn_backward, sinkhorn_forward
from mhc_bench.ops.streams import weighted_sum
from mhc_bench.ops.types import Triple


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, iterations: int, epsilon: float, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lead, (n, width) = stream.shape[:-2], stream.shape[-2:]
        x = widened(stream).reshape(-1, n, width)
        tokens = len(x)
        phi, bias, gates = _joined(parameters, n, x.dtype)
        flat = x.view(tokens, n * width)
        inverse = torch.rsqrt(torch.linalg.vector_norm(flat, dim=1).square_().div_(n * width).add_(epsilon))
        normalised = torch.mm(phi, flat.T).mul_(inverse)
        logits = torch.addcmul(bias.unsqueeze(1), normalised, gates.unsqueeze(1))
        sigma = torch.sigmoid(logits[: 2 * n])
        trace = sinkhorn_forward(logits[2 * n :].view(n, n, tokens), iterations)
        pre, post = sigma[:n].T.contiguous(), (2 * sigma[n:]).T.contiguous()
        res = trace.matrix.permute(2, 0, 1).contiguous()
        ctx.save_for_backward(stream, phi, gates, inverse, normalised, sigma, pre, *trace)
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
        stream, phi, gates, inverse, normalised, sigma, pre, *trace = ctx.saved_tensors
        with without_autocast(stream):
            n, width = stream.shape[-2:]
            x = widened(stream).reshape(-1, n, width)
            tokens = len(x)
            hidden = widened(grad_hidden).reshape(tokens, 1, width)
            grad_pre = grad_pre.reshape(tokens, n) + (x * hidden).sum(-1)
            grad_maps = grad_pre, grad_post.reshape(tokens, n), grad_res.reshape(tokens, n, n)
            grad = _logit_gradient(grad_maps, sigma, SinkhornTrace(*trace))
            flat = x.view(tokens, n * width)
            weighted = grad * normalised
            radial = (gates @ weighted).mul_(inverse.square()).div_(-n * width)
            raw = (grad * gates.unsqueeze(1)).mul_(inverse)
            grad_x = torch.mm(raw.T, phi).addcmul_(flat, radial.unsqueeze(1)).view(x.shape)
            grad_x.addcmul_(pre.unsqueeze(2), hidden)
            sizes = [n, n, n * n]
            grad_phi = torch.split(torch.mm(raw, flat), sizes)
            grad_bias = torch.split(grad.sum(1), sizes)
            grad_alpha = [part.sum().view(1) for part in torch.split(weighted.sum(1), sizes)]
        return grad_x.to(stream.dtype).view(stream.shape), None, None, *grad_phi, *grad_bias, *grad_alpha


def _logit_gradient(grad_maps: Triple, sigma: Tensor, trace: SinkhornTrace) -> Tensor:
    """[K, N] from the gradients of pre [N, n], post [N, n], res [N, n, n]; sigma is [2n, N], pre and post."""
    grad_pre, grad_post, grad_res = grad_maps
    tokens, n = grad_pre.shape
    grad = sigma.new_empty(2 * n + n * n, tokens)
    grad[:n] = grad_pre.T
    torch.mul(grad_post.T, 2, out=grad[n : 2 * n])
    grad[: 2 * n].mul_(sigma).addcmul_(grad[: 2 * n], sigma, value=-1)
    grad[2 * n :] = sinkhorn_backward(grad_res.permute(1, 2, 0), trace).view(n * n, tokens)
    return grad


def _joined(parameters: tuple[Tensor, ...], n: int, dtype: torch.dtype) -> Triple:
    """phi [K, n*C], bias [K] and the gate of each entry [K] from their nine parts."""
    phi, bias = torch.cat(parameters[:3]), torch.cat(parameters[3:6])
    gates = torch.cat([gate.expand(size) for gate, size in zip(parameters[6:], (n, n, n * n), strict=True)])
    return phi.to(dtype), bias.to(dtype), gates.to(dtype)


def mhc_read(
    stream: Tensor, phi: Triple, bias: Triple, alpha: Triple, iterations: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`reference.mhc_maps` and `reference.read` at once.

    Args:
        stream: [..., n, C].
        phi: [n, n*C], [n, n*C] and [n*n, n*C].
        bias: [n], [n] and [n*n].
        alpha: [1] each.
        iterations: Sinkhorn rounds.
        epsilon: of the RMS norm.

    Returns:
        hidden [..., C] in the dtype of `stream`; pre [..., n], post [..., n] and res [..., n, n] in fp32
        at least.
    """
    hidden, pre, post, res = applied(_Read, stream, iterations, epsilon, *phi, *bias, *alpha)
    return hidden, pre, post, res

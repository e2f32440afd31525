"""mHC in plain eager torch, split and with the conventions of Liger's Triton kernels (liger-kernel 0.8.5).

Maps in fp32 from one matrix, divided by the RMS after the product; H_res is [out, in]; Sinkhorn begins with a
softmax over rows, ends with columns, and has its epsilon in every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.ops.types import Triple


def coefficients(
    stream: Tensor,
    phi: Tensor,
    bias: Tensor,
    alpha: Tensor,
    *,
    iterations: int,
    rms_epsilon: float,
    sinkhorn_epsilon: float = 1e-6,
) -> Triple:
    """H_pre [..., n], H_post [..., n] and H_res [..., n, n] of streams [..., n, C].

    Args:
        phi: [n*C, 2n + n*n], columns in the order of the result.
        bias: [2n + n*n].
        alpha: [3], a scale for each map.
        iterations: of Sinkhorn.
        rms_epsilon: added to the mean square.
        sinkhorn_epsilon: added to the first matrix and to every sum.
    """
    n = stream.shape[-2]
    flat = stream.float().flatten(-2)
    inverse_rms = torch.rsqrt(flat.square().mean(-1, keepdim=True) + rms_epsilon)
    sizes = [n, n, n * n]
    raw, shifts = torch.split(flat @ phi * inverse_rms, sizes, dim=-1), torch.split(bias, sizes)
    pre, post, res = (scale * each + shift for each, scale, shift in zip(raw, alpha, shifts, strict=True))
    mixing = sinkhorn(res.unflatten(-1, (n, n)), iterations, sinkhorn_epsilon)
    return torch.sigmoid(pre), 2 * torch.sigmoid(post), mixing


def sinkhorn(logits: Tensor, iterations: int, epsilon: float) -> Tensor:
    """Rows, the first time by softmax, and then columns of [..., n, n] divided by their sums."""
    matrix = _divided(logits.softmax(-1) + epsilon, -2, epsilon)
    for _ in range(iterations - 1):
        matrix = _divided(_divided(matrix, -1, epsilon), -2, epsilon)
    return matrix


def _divided(matrix: Tensor, dim: int, epsilon: float) -> Tensor:
    return matrix / (matrix.sum(dim, keepdim=True) + epsilon)


def aggregate(stream: Tensor, weights: Tensor) -> Tensor:
    """H_pre x [..., C] in the dtype of the streams."""
    return torch.einsum("...n,...nc->...c", weights, stream.float()).to(stream.dtype)


def write(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    """H_res x + H_post F [..., n, C] in the dtype of the streams."""
    mixed = torch.einsum("...oi,...ic->...oc", res, stream.float())
    return (mixed + post.unsqueeze(-1) * update.float().unsqueeze(-2)).to(stream.dtype)

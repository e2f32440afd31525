"""The maths of Hyper-Connections and mHC as it stands in the papers: the oracle of every faster version.

Plain differentiable torch operations, any device and floating dtype; nothing here is tuned for speed.
Shape legend: n streams, C width, `...` batch and time. Mixing matrices are [..., out, in].
Sources: HC is arXiv 2409.19606 (Eq. 5 of 2512.24880 restates it), mHC is arXiv 2512.24880 Eq. 3 and 7-9.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def rms_normalised(x: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) over the last axis; the projection that follows would absorb a gain."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def project(stream: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """vec(x) / rms(vec(x)) W^T: [..., n, C] and [K, n*C] to [..., K]; one norm over all n*C entries."""
    return rms_normalised(stream.flatten(-2), epsilon) @ weight.T


def hc_maps(
    stream: Tensor,
    weight: Tensor,
    static: tuple[Tensor, Tensor, Tensor],
    scale: tuple[Tensor, Tensor],
    epsilon: float,
    activation: Callable[[Tensor], Tensor] = torch.tanh,
) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamic Hyper-Connection maps.

    Args:
        stream: [..., n, C].
        weight: [2 + n, C], the rows for pre, post and each output stream of res.
        static: pre [n], post [n] and res [n, n].
        scale: [1] each, the factors of the dynamic parts: pre and res share the first, post has the second.
        epsilon: of the RMS norm over C, stream by stream.
        activation: of the dynamic parts; the paper's is tanh.

    Returns:
        pre [..., n], post [..., n] and res [..., n, n]; entry (out, in) of res depends on stream `in`.
    """
    dynamic = activation(rms_normalised(stream, epsilon) @ weight.T)  # [..., n, 2 + n], one row per stream
    static_pre, static_post, static_res = static
    pre = scale[0] * dynamic[..., 0] + static_pre
    post = scale[1] * dynamic[..., 1] + static_post
    res = scale[0] * dynamic[..., 2:].transpose(-1, -2) + static_res
    return pre, post, res


def mhc_maps(
    stream: Tensor, phi: Tensor, bias: Tensor, alpha: Tensor, iterations: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Manifold-constrained maps.

    Args:
        stream: [..., n, C].
        phi: [2n + n*n, n*C], the rows for pre, post and res (row-major over out, in).
        bias: [2n + n*n], laid out as phi.
        alpha: [3], the gates of pre, post and res.
        iterations: Sinkhorn rounds.
        epsilon: of the one RMS norm over all n*C entries.

    Returns:
        pre [..., n] in (0, 1), post [..., n] in (0, 2) and res [..., n, n] on the Birkhoff polytope.
    """
    n = stream.shape[-2]
    raw = project(stream, phi, epsilon)
    gates = alpha.repeat_interleave(torch.tensor([n, n, n * n], device=alpha.device))
    pre, post, res = torch.split(raw * gates + bias, [n, n, n * n], dim=-1)
    mixed = sinkhorn(res.view(*res.shape[:-1], n, n), iterations)
    return torch.sigmoid(pre), 2 * torch.sigmoid(post), mixed


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """exp(logits) [..., n, n] with columns and then rows divided by their sums, `iterations` times.

    In the log domain, so that no row or column can underflow to 0/0. Rows come last: they sum to 1 up to
    rounding, and the error of finitely many rounds stands in the column sums.
    """
    for _ in range(iterations):
        logits = torch.log_softmax(logits, dim=-2)
        logits = torch.log_softmax(logits, dim=-1)
    return logits.exp()


def read(stream: Tensor, pre: Tensor) -> Tensor:
    """H_pre x: [..., n, C] and [..., n] to the sublayer's input [..., C]."""
    return torch.einsum("...n,...nc->...c", pre, stream)


def write(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    """H_res x + H_post^T F: [..., n, C], [..., C], [..., n] and [..., n, n] to [..., n, C]."""
    return torch.einsum("...oi,...ic->...oc", res, stream) + post.unsqueeze(-1) * update.unsqueeze(-2)

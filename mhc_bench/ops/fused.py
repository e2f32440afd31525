"""The operations in Triton kernels: on CUDA, and in Triton's interpreter on a CPU for tests.

The read returns the streams that it was given beside what it made of them, so that their gradient from
`write` arrives in its own backward pass, which adds it to the two of the read in the pass that computes
those. Autograd would otherwise add three full gradients in passes of their own. Nothing depends on it: the
streams that are handed on are the streams, and `write` takes any.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_bench.ops.kernels import operators
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.types import HcCoefficients, MhcCoefficients, Read

MOST_ROWS = 128
"""Of a weight that one launch projects with."""


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        stream: Tensor,
        weight: Tensor,
        static: Tensor,
        gates: Tensor,
        iterations: int,
        epsilon: float,
        hc: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        pre, post, res, normalised, inverse = operators.coefficients(
            stream, weight, static, gates, iterations, epsilon, hc
        )
        ctx.save_for_backward(stream, pre, normalised, inverse, weight, static, gates)
        ctx.iterations, ctx.hc = iterations, hc
        return operators.aggregate(stream, pre), pre, post, res, stream

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_hidden: Tensor,
        grad_pre: Tensor,
        grad_post: Tensor,
        grad_res: Tensor,
        grad_through: Tensor,
    ) -> tuple[Tensor | None, ...]:
        stream, *kept = ctx.saved_tensors
        grads = grad_through, grad_hidden, grad_pre, grad_post, grad_res
        return *operators.read_backward(stream, *grads, *kept, ctx.iterations, ctx.hc), None, None, None


class TritonOperations(Operations):
    """Few passes over the streams, and nothing kept of them but themselves."""

    name = "triton"

    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        static = torch.cat([each.reshape(-1, stream.shape[-2]) for each in coefficients.static])
        gates = torch.cat(coefficients.scale)
        parts = coefficients.weight.float(), static.float(), gates.float()
        return Read(*_Read.apply(stream, *parts, 0, coefficients.epsilon, True))  # type: ignore[no-untyped-call]

    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        phi, bias, alpha, iterations, epsilon = coefficients
        static = torch.cat(bias).view(-1, stream.shape[-2])
        parts = torch.cat(phi).float(), static.float(), torch.cat(alpha).float()
        return Read(*_Read.apply(stream, *parts, iterations, epsilon, False))  # type: ignore[no-untyped-call]

    def project(self, stream: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        parts = [operators.project(stream, rows, epsilon)[0] for rows in weight.float().split(MOST_ROWS)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def aggregate(self, stream: Tensor, pre: Tensor) -> Tensor:
        return operators.aggregate(stream, pre.float())

    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        return operators.write(through, update, post.float(), res.float())

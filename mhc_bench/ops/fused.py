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
from mhc_bench.ops.kernels.blocks import most_rows
from mhc_bench.ops.kernels.launch import Projection
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.types import Coefficients, HcCoefficients, MhcCoefficients, Read


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


def hc_projection(coefficients: HcCoefficients) -> Projection:
    """HC's parameters as the kernels take them: static maps [2 + n, n] in rows pre, post and res, in fp32."""
    weight, (pre, post, res), scale, epsilon = coefficients
    static = torch.cat([pre.unsqueeze(0), post.unsqueeze(0), res])
    return Projection(weight.float(), static.float(), torch.cat(scale).float(), 0, epsilon, True)


def mhc_projection(coefficients: MhcCoefficients) -> Projection:
    """mHC's parameters as the kernels take them: the biases [2 + n, n] in rows pre, post and res, in fp32."""
    phi, bias, alpha, iterations, epsilon = coefficients
    static = torch.cat(bias).view(-1, len(bias[0]))
    return Projection(
        torch.cat(phi).float(), static.float(), torch.cat(alpha).float(), iterations, epsilon, False
    )


def _read(stream: Tensor, projection: Projection) -> Read:
    return Read(*_Read.apply(stream, *projection))  # type: ignore[no-untyped-call]


class TritonOperations(Operations):
    """Few passes over the streams, and nothing kept of them but themselves."""

    name = "triton"

    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        return _read(stream, hc_projection(coefficients))

    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        return _read(stream, mhc_projection(coefficients))

    def write_read(
        self, through: Tensor, update: Tensor, post: Tensor, res: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, Read]:
        """For HC and mHC one operator, which projects what it writes while it writes; else the two."""
        match coefficients:
            case HcCoefficients():
                projection = hc_projection(coefficients)
            case MhcCoefficients():
                projection = mhc_projection(coefficients)
            case _:
                return super().write_read(through, update, post, res, coefficients)
        results = operators.write_read(through, update, post.float(), res.float(), *projection)
        written, hidden, next_pre, next_post, next_res, _, _ = results
        return written, Read(hidden, next_pre, next_post, next_res, written)

    def project(self, stream: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        most = most_rows(stream.shape[-2])
        parts = [operators.project(stream, rows, epsilon)[0] for rows in torch.split(weight.float(), most)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def aggregate(self, stream: Tensor, pre: Tensor) -> Tensor:
        hidden: Tensor = operators.aggregate(stream, pre.float())
        return hidden

    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        written: Tensor = operators.write(through, update, post.float(), res.float())
        return written

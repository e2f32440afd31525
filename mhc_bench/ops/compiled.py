"""The operations in C++, on a CPU: one pass over the streams each, and little kept between the passes.

A read hands the stream on as `Read.through`, so that one backward pass makes its whole gradient: from the
read, and from the write and whatever else comes through. A write and the read that follows share a pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_bench.ops.eager import EagerOperations
from mhc_bench.ops.native import build, library
from mhc_bench.ops.precision import applied, shaped, widened
from mhc_bench.ops.types import Coefficients, HcCoefficients, MhcCoefficients, Read

_native = library.OPERATORS


class _Read(torch.autograd.Function):
    """(hidden, pre, post, res, through); keeps the stream and K + 1 numbers per row of the projection."""

    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, kind: str, iterations: int, epsilon: float, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        hidden, *maps, normalised, inverse = _native.read(
            kind, widened(stream), parameters, iterations, epsilon
        )
        ctx.kind, ctx.iterations = kind, iterations
        ctx.save_for_backward(stream, normalised, inverse, *parameters)
        return hidden.to(stream.dtype), *maps, shaped(stream, *stream.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        stream, normalised, inverse, *parameters = ctx.saved_tensors
        hidden, pre, post, res, through = grads
        given = [widened(through), widened(hidden), pre, post, res]
        to_stream, *to_parameters = _native.read_backward(
            ctx.kind, [], widened(stream), parameters, normalised, inverse, given, ctx.iterations
        )
        return to_stream.to(stream.dtype), None, None, None, *to_parameters


class _Write(torch.autograd.Function):
    """The written stream; keeps the operands."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        ctx.save_for_backward(stream, update, post, res)
        written: Tensor = _native.write(widened(stream), widened(update), post, res).to(stream.dtype)
        return written

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        stream, update, post, res = ctx.saved_tensors
        to_stream, to_update, *to_maps = _native.write_backward(
            widened(grad), widened(stream), widened(update), post, res
        )
        return to_stream.to(stream.dtype), to_update.to(update.dtype), *to_maps


class _WriteRead(torch.autograd.Function):
    """(written, hidden, pre, post, res) of an fp32 stream; keeps what `_Write` and `_Read` keep."""

    @staticmethod
    def forward(
        ctx: Any,
        stream: Tensor,
        update: Tensor,
        post: Tensor,
        res: Tensor,
        kind: str,
        iterations: int,
        epsilon: float,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        written, *read, normalised, inverse = _native.write_read(
            kind, [stream, widened(update), post, res], parameters, iterations, epsilon
        )
        ctx.kind, ctx.iterations = kind, iterations
        ctx.save_for_backward(stream, update, post, res, written, normalised, inverse, *parameters)
        return written, *read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        stream, update, post, res, written, normalised, inverse, *parameters = ctx.saved_tensors
        write = [stream, widened(update), post, res]
        to_stream, to_update, to_post, to_res, *to_parameters = _native.read_backward(
            ctx.kind, write, written, parameters, normalised, inverse, list(grads), ctx.iterations
        )
        return to_stream, to_update.to(update.dtype), to_post, to_res, None, None, None, *to_parameters


class CompiledOperations(EagerOperations):
    """C++ for what HC and mHC do; variants composed from a projection share its write.

    Raises:
        UsageError: there is no C++ compiler on this machine.
    """

    name = "compiled"

    def __init__(self) -> None:
        build.require_compiler()

    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        return self._read(stream, coefficients)

    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        return self._read(stream, coefficients)

    def _read(self, stream: Tensor, coefficients: HcCoefficients | MhcCoefficients) -> Read:
        return Read(*applied(_Read, stream, *_arguments(stream, coefficients)))

    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        written: Tensor = applied(_Write, through, update, post, res)
        return written

    def write_read(
        self, through: Tensor, update: Tensor, post: Tensor, res: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, Read]:
        if not isinstance(coefficients, HcCoefficients | MhcCoefficients) or widened(through) is not through:
            return super().write_read(through, update, post, res, coefficients)
        written, hidden, pre, post, res = applied(
            _WriteRead, through, update, post, res, *_arguments(through, coefficients)
        )
        return written, Read(hidden, pre, post, res, written)


def _arguments(stream: Tensor, coefficients: HcCoefficients | MhcCoefficients) -> tuple[Any, ...]:
    """kind, iterations, epsilon and the parameters, in the dtype of the arithmetic."""
    dtype = torch.promote_types(stream.dtype, torch.float32)
    if isinstance(coefficients, HcCoefficients):
        weight, static, scale, epsilon = coefficients
        return "hc", 0, epsilon, *(each.to(dtype) for each in (weight, *static, *scale))
    phi, bias, alpha, iterations, epsilon = coefficients
    return "mhc", iterations, epsilon, *(each.to(dtype) for each in (*phi, *bias, *alpha))

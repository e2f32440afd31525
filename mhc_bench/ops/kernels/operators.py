"""The kernels as operators of torch, `torch.ops.mhc_bench.*`, with fake kernels and registered autograd.

An operator may not return its input, so the first read, which hands the streams on to the write, is put
together from `coefficients`, `aggregate` and `read_backward` in `mhc_bench.ops.fused`; what else has
gradients carries its own backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_bench.ops.kernels import launch


@torch.library.custom_op("mhc_bench::coefficients", mutates_args=())
def coefficients(
    stream: Tensor, weight: Tensor, static: Tensor, gates: Tensor, iterations: int, epsilon: float, hc: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """pre, post, res, normalised projection and inverse RMS (`launch.coefficients`)."""
    return launch.coefficients(stream, weight, static, gates, iterations, epsilon, hc)


@coefficients.register_fake
def _(
    stream: Tensor, weight: Tensor, static: Tensor, gates: Tensor, iterations: int, epsilon: float, hc: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return *launch.maps_like(stream), *launch.tables_like(stream)


@torch.library.custom_op("mhc_bench::read_backward", mutates_args=())
def read_backward(
    stream: Tensor,
    grad_through: Tensor,
    grad_hidden: Tensor,
    grad_pre: Tensor,
    grad_post: Tensor,
    grad_res: Tensor,
    pre: Tensor,
    normalised: Tensor,
    inverse: Tensor,
    weight: Tensor,
    static: Tensor,
    gates: Tensor,
    iterations: int,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of stream, weight, static and gates, all uses of the stream in one pass."""
    raw, radial, of_static, of_gates = launch.coefficients_backward(
        stream,
        grad_hidden,
        (grad_pre, grad_post, grad_res),
        static,
        gates,
        normalised,
        inverse,
        iterations,
        hc,
    )
    read = grad_through, grad_hidden, pre
    of_stream, of_weight = launch.stream_gradient(stream, weight, raw, radial, read, hc)
    return of_stream, of_weight, of_static, of_gates


@read_backward.register_fake
def _(
    stream: Tensor,
    grad_through: Tensor,
    grad_hidden: Tensor,
    grad_pre: Tensor,
    grad_post: Tensor,
    grad_res: Tensor,
    pre: Tensor,
    normalised: Tensor,
    inverse: Tensor,
    weight: Tensor,
    static: Tensor,
    gates: Tensor,
    iterations: int,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return like(stream), like(weight), like(static), like(gates)


@torch.library.custom_op("mhc_bench::project", mutates_args=())
def project(stream: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The normalised projection [..., K] and the inverse RMS [...]."""
    return launch.project(stream, weight, epsilon)


@project.register_fake
def _(stream: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    lead = stream.shape[:-2]
    return (
        stream.new_empty(*lead, len(weight), dtype=torch.float32),
        stream.new_empty(lead, dtype=torch.float32),
    )


@torch.library.custom_op("mhc_bench::project_backward", mutates_args=())
def project_backward(
    stream: Tensor, weight: Tensor, normalised: Tensor, inverse: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of stream and weight."""
    n, width = stream.shape[-2:]
    along = (grad * normalised).sum(-1).mul_(inverse.square()).div_(-n * width)
    radial = along.unsqueeze(-1).expand(*along.shape, n)
    return launch.stream_gradient(stream, weight, grad * inverse.unsqueeze(-1), radial, None, False)


@project_backward.register_fake
def _(
    stream: Tensor, weight: Tensor, normalised: Tensor, inverse: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    return like(stream), like(weight)


def _keep_project(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    stream, weight, _ = inputs
    ctx.save_for_backward(stream, weight, *output)


def _project_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *project_backward(*ctx.saved_tensors, grad), None


project.register_autograd(_project_backward, setup_context=_keep_project)


@torch.library.custom_op("mhc_bench::aggregate", mutates_args=())
def aggregate(stream: Tensor, pre: Tensor) -> Tensor:
    """H_pre x [..., C]."""
    return launch.aggregate(stream, pre)


@aggregate.register_fake
def _(stream: Tensor, pre: Tensor) -> Tensor:
    return stream.new_empty(*stream.shape[:-2], stream.shape[-1])


@torch.library.custom_op("mhc_bench::aggregate_backward", mutates_args=())
def aggregate_backward(stream: Tensor, pre: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of stream and pre."""
    return launch.aggregate_backward(stream, pre, grad)


@aggregate_backward.register_fake
def _(stream: Tensor, pre: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return like(stream), like(pre)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _aggregate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return (*aggregate_backward(*ctx.saved_tensors, grad),)


aggregate.register_autograd(_aggregate_backward, setup_context=_keep_inputs)


@torch.library.custom_op("mhc_bench::write", mutates_args=())
def write(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    """H_res x + H_post^T F [..., n, C]. Only its inputs are kept."""
    return launch.write(stream, update, post, res)


@write.register_fake
def _(stream: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
    return like(stream)


@torch.library.custom_op("mhc_bench::write_backward", mutates_args=())
def write_backward(
    stream: Tensor, update: Tensor, post: Tensor, res: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of stream, update, post and res."""
    return launch.write_backward(stream, update, post, res, grad)


@write_backward.register_fake
def _(
    stream: Tensor, update: Tensor, post: Tensor, res: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return like(stream), like(update), like(post), like(res)


def _write_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return (*write_backward(*ctx.saved_tensors, grad),)


write.register_autograd(_write_backward, setup_context=_keep_inputs)


@torch.library.custom_op("mhc_bench::write_read", mutates_args=())
def write_read(
    stream: Tensor,
    update: Tensor,
    post: Tensor,
    res: Tensor,
    weight: Tensor,
    static: Tensor,
    gates: Tensor,
    iterations: int,
    epsilon: float,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `write` writes; its hidden, pre, post and res; the normalised projection and the inverse RMS."""
    written, pre, *others = launch.write_coefficients(
        stream, update, post, res, weight, static, gates, iterations, epsilon, hc
    )
    next_post, next_res, normalised, inverse = others
    return written, launch.aggregate(written, pre), pre, next_post, next_res, normalised, inverse


@write_read.register_fake
def _(
    stream: Tensor,
    update: Tensor,
    post: Tensor,
    res: Tensor,
    weight: Tensor,
    static: Tensor,
    gates: Tensor,
    iterations: int,
    epsilon: float,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    hidden = stream.new_empty(*stream.shape[:-2], stream.shape[-1])
    return like(stream), hidden, *launch.maps_like(stream), *launch.tables_like(stream)


def _keep_write_read(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.iterations, _, ctx.hc = inputs
    written, _, pre, _, _, normalised, inverse = output
    ctx.save_for_backward(*tensors, written, pre, normalised, inverse)


def _write_read_backward(
    ctx: Any,
    grad_written: Tensor,
    grad_hidden: Tensor,
    grad_pre: Tensor,
    grad_post: Tensor,
    grad_res: Tensor,
    *_: Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradient of what was written, from all its uses, and then that of the write."""
    stream, update, post, res, weight, static, gates, written, *kept = ctx.saved_tensors
    grads = grad_written, grad_hidden, grad_pre, grad_post, grad_res
    whole, *of_parameters = read_backward(
        written, *grads, *kept, weight, static, gates, ctx.iterations, ctx.hc
    )
    return *write_backward(stream, update, post, res, whole), *of_parameters, None, None, None


write_read.register_autograd(_write_read_backward, setup_context=_keep_write_read)


def like(x: Tensor) -> Tensor:
    """Room for a tensor like `x`, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)

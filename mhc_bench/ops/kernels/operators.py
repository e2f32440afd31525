"""The kernels as operators of torch, `torch.ops.mhc_bench.*`, with fake kernels and registered autograd.

An operator may not return its input, so the first read, which hands the streams on to the write, is put
together from `coefficients`, `aggregate` and `read_backward` in `mhc_bench.ops.fused`; what else has
gradients carries its own backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_bench.ops.kernels import reads, writes
from mhc_bench.ops.kernels.launch import Projection, hidden_like, like, maps_like, projected_like, tables_like
from mhc_bench.ops.kernels.writes import Write


@torch.library.custom_op("mhc_bench::coefficients", mutates_args=())
def coefficients(
    stream: Tensor, weight: Tensor, static: Tensor, gates: Tensor, iterations: int, epsilon: float, hc: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """pre, post, res, normalised projection and inverse RMS (`reads.coefficients`)."""
    return reads.coefficients(stream, Projection(weight, static, gates, iterations, epsilon, hc))


@coefficients.register_fake
def _(stream: Tensor, *_: object) -> tuple[Tensor, ...]:
    return *maps_like(stream), *tables_like(stream)


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
    projection = Projection(weight, static, gates, iterations, 0.0, hc)
    grad_maps, kept = (grad_pre, grad_post, grad_res), (normalised, inverse)
    raw, radial, *others = reads.coefficients_backward(stream, grad_hidden, grad_maps, kept, projection)
    read = grad_through, grad_hidden, pre
    of_stream, of_weight = reads.stream_gradient(stream, weight, raw, radial, read, hc)
    return of_stream, of_weight, others[0], others[1]


@read_backward.register_fake
def _(stream: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return like(stream), *map(like, others[8:11])


@torch.library.custom_op("mhc_bench::project", mutates_args=())
def project(stream: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The normalised projection [..., K] and the inverse RMS [...]."""
    return reads.project(stream, weight, epsilon)


@project.register_fake
def _(stream: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return projected_like(stream, weight)


@torch.library.custom_op("mhc_bench::project_backward", mutates_args=())
def project_backward(
    stream: Tensor, weight: Tensor, normalised: Tensor, inverse: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of stream and weight."""
    n, width = stream.shape[-2:]
    along = (grad * normalised).sum(-1).mul_(inverse.square()).div_(-n * width)
    radial = along.unsqueeze(-1).expand(*along.shape, n)
    return reads.stream_gradient(stream, weight, grad * inverse.unsqueeze(-1), radial, None, False)


@project_backward.register_fake
def _(stream: Tensor, weight: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
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
    return reads.aggregate(stream, pre)


@aggregate.register_fake
def _(stream: Tensor, pre: Tensor) -> Tensor:
    return hidden_like(stream)


@torch.library.custom_op("mhc_bench::aggregate_backward", mutates_args=())
def aggregate_backward(stream: Tensor, pre: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of stream and pre."""
    return reads.aggregate_backward(stream, pre, grad)


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
    return writes.write(Write(stream, update, post, res))


@write.register_fake
def _(stream: Tensor, *_: Tensor) -> Tensor:
    return like(stream)


@torch.library.custom_op("mhc_bench::write_backward", mutates_args=())
def write_backward(
    stream: Tensor, update: Tensor, post: Tensor, res: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of stream, update, post and res."""
    return writes.write_backward(Write(stream, update, post, res), grad)


@write_backward.register_fake
def _(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(like, inputs[:4]))


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
    projection = Projection(weight, static, gates, iterations, epsilon, hc)
    written, pre, *others = writes.write_coefficients(Write(stream, update, post, res), projection)
    next_post, next_res, normalised, inverse = others
    return written, reads.aggregate(written, pre), pre, next_post, next_res, normalised, inverse


@write_read.register_fake
def _(stream: Tensor, *_: object) -> tuple[Tensor, ...]:
    return like(stream), hidden_like(stream), *maps_like(stream), *tables_like(stream)


@torch.library.custom_op("mhc_bench::write_read_backward", mutates_args=())
def write_read_backward(
    stream: Tensor,
    update: Tensor,
    post: Tensor,
    res: Tensor,
    weight: Tensor,
    static: Tensor,
    gates: Tensor,
    written: Tensor,
    pre: Tensor,
    normalised: Tensor,
    inverse: Tensor,
    grad_written: Tensor,
    grad_hidden: Tensor,
    grad_pre: Tensor,
    grad_post: Tensor,
    grad_res: Tensor,
    iterations: int,
    hc: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of stream, update, post, res, weight, static and gates.

    Traffic: n + 1 for the maps, n for the weight, and 3n + 3 in which the gradient of what was written is
    made and used without leaving the chip.
    """
    projection = Projection(weight, static, gates, iterations, 0.0, hc)
    grad_maps, kept = (grad_pre, grad_post, grad_res), (normalised, inverse)
    raw, radial, *others = reads.coefficients_backward(written, grad_hidden, grad_maps, kept, projection)
    of_weight = reads.weight_gradient(written, weight, raw, hc)
    operands = Write(stream, update, post, res)
    grads = writes.write_read_backward(operands, grad_written, grad_hidden, pre, raw, radial, weight, hc)
    return *grads, of_weight, others[0], others[1]


@write_read_backward.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    return tuple(map(like, inputs[:7]))


def _keep_write_read(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.iterations, _, ctx.hc = inputs
    written, _, pre, _, _, normalised, inverse = output
    ctx.save_for_backward(*tensors, written, pre, normalised, inverse)


def _write_read_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """`grads` are of all seven results; normalised projection and inverse RMS go nowhere."""
    found = write_read_backward(*ctx.saved_tensors, *grads[:5], ctx.iterations, ctx.hc)
    return *found, None, None, None


write_read.register_autograd(_write_read_backward, setup_context=_keep_write_read)

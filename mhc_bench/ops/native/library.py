"""The kernels as operators of `torch.library`, opaque to torch.compile: `torch.ops.mhc_bench_native.*`.

Shape legend: `...` batch and time, n streams, C width, K map entries, r rows per token (mHC 1, HC n). `kind`
is `mhc` or `hc`; `parameters` are the tensors of its coefficients, in their order. All tensors are fp32 or
all are fp64; an absent gradient is 0. Derivatives: the autograd functions of `mhc_bench.ops.compiled`, which
call these in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mhc_bench.ops.native.call import run

Tensors = tuple[Tensor, ...]
LIBRARY = torch.library.Library("mhc_bench_native", "FRAGMENT")  # type: ignore[no-untyped-call]
OPERATORS = torch.ops.mhc_bench_native
READ = ("hidden", "pre", "post", "res", "normalised", "inverse")
WRITE = ("source", "update", "write_post", "write_res")
GRADIENTS = ("grad_stream", "grad_hidden", "grad_pre", "grad_post", "grad_res")


def _define(name: str, signature: str, results: Callable[..., Any], compute: Callable[..., None]) -> None:
    """An operator whose `results(*arguments)` are made empty, and on a CPU filled by `compute`."""

    def kernel(*arguments: Any) -> Any:
        made = results(*arguments)
        compute(made, *arguments)
        return made

    LIBRARY.define(name + signature, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    LIBRARY.impl(name, kernel, "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"mhc_bench_native::{name}", results, lib=LIBRARY)


def _like(*tensors: Tensor) -> Tensors:
    return tuple(torch.empty_like(each, memory_format=torch.contiguous_format) for each in tensors)


def _named(names: Sequence[str], tensors: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
    """The tensors by name, contiguous."""
    pairs = zip(names, tensors, strict=True)
    return {name: None if each is None else each.contiguous() for name, each in pairs}


def _read_results(kind: str, stream: Tensor, *_: object) -> Tensors:
    """`READ`: [..., C], [..., n], [..., n], [..., n, n], normalised [..., r, K] and inverse [..., r]."""
    lead, (n, width) = stream.shape[:-2], stream.shape[-2:]
    rows, entries = (n, 2 + n) if kind == "hc" else (1, 2 * n + n * n)
    shapes = (width,), (n,), (n,), (n, n), (rows, entries), (rows,)
    return tuple(stream.new_empty((*lead, *shape)) for shape in shapes)


def _read(
    made: Tensors, kind: str, stream: Tensor, parameters: list[Tensor], iterations: int, epsilon: float
) -> None:
    given = [each.contiguous() for each in parameters]
    outputs = _named(READ, made)
    run(f"{kind}_read", stream.contiguous(), outputs, given, iterations=iterations, epsilon=epsilon)


def _write_read_results(kind: str, write: list[Tensor], *_: object) -> Tensors:
    """The written stream, and `READ` of it."""
    return (*_like(write[0]), *_read_results(kind, write[0]))


def _write_read(
    made: Tensors, kind: str, write: list[Tensor], parameters: list[Tensor], iterations: int, epsilon: float
) -> None:
    given = [each.contiguous() for each in parameters]
    operands = _named(WRITE, write) | dict(zip(READ, made[1:], strict=True))
    run(f"{kind}_read", made[0], operands, given, iterations=iterations, epsilon=epsilon)


def _read_backward_results(
    kind: str, write: list[Tensor], stream: Tensor, parameters: list[Tensor], *_: object
) -> Tensors:
    """Gradients of the stream, or of `WRITE` if that made the stream; and of the parameters."""
    return _like(*(write or [stream]), *parameters)


def _read_backward(
    made: Tensors,
    kind: str,
    write: list[Tensor],
    stream: Tensor,
    parameters: list[Tensor],
    normalised: Tensor,
    inverse: Tensor,
    gradients: list[Tensor | None],
    iterations: int,
) -> None:
    given = [each.contiguous() for each in parameters]
    operands = _named((*GRADIENTS, "normalised", "inverse"), (*gradients, normalised, inverse))
    if write:
        operands |= _named(WRITE, write) | dict(zip((f"to_{name}" for name in WRITE), made[:4], strict=True))
    else:
        operands["to_stream"] = made[0]
    wanted = made[len(write) or 1 :]
    run(f"{kind}_read_backward", stream.contiguous(), operands, given, wanted, iterations=iterations)


def _write_results(stream: Tensor, *_: Tensor) -> Tensor:
    return _like(stream)[0]


def _write(made: Tensor, *write: Tensor) -> None:
    run("write_streams", made, _named(WRITE, write))


def _write_backward_results(grad: Tensor, *write: Tensor) -> Tensors:
    """Gradients of `WRITE`."""
    return _like(*write)


def _write_backward(made: Tensors, grad: Tensor, *write: Tensor) -> None:
    operands = _named(("grad_stream", *WRITE), (grad, *write))
    operands |= dict(zip((f"to_{name}" for name in WRITE), made, strict=True))
    run("write_streams_backward", made[0], operands)


_FOUR = "Tensor source, Tensor update, Tensor post, Tensor res"
_RESULTS = "(Tensor hidden, Tensor pre, Tensor post, Tensor res, Tensor normalised, Tensor inverse)"
_define(
    "read",
    f"(str kind, Tensor stream, Tensor[] parameters, int iterations, float epsilon) -> {_RESULTS}",
    _read_results,
    _read,
)
_define(
    "write_read",
    "(str kind, Tensor[] write, Tensor[] parameters, int iterations, float epsilon) -> "
    f"{_RESULTS.replace('(', '(Tensor written, ')}",
    _write_read_results,
    _write_read,
)
_define(
    "read_backward",
    "(str kind, Tensor[] write, Tensor stream, Tensor[] parameters, Tensor normalised, Tensor inverse, "
    "Tensor?[] gradients, int iterations) -> Tensor[]",
    _read_backward_results,
    _read_backward,
)
_define("write", f"({_FOUR}) -> Tensor", _write_results, _write)
_define(
    "write_backward",
    f"(Tensor grad, {_FOUR}) -> (Tensor, Tensor, Tensor, Tensor)",
    _write_backward_results,
    _write_backward,
)

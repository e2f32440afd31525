"""Calling the kernels: tensors in, tensors out, as `struct Call` of `kernels.cpp` has them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mhc_bench.ops.native.build import kernels

_POINTERS = (
    "stream",
    "parameters",
    *("hidden", "pre", "post", "res", "normalised", "inverse"),
    *("source", "update", "write_post", "write_res"),
    *("grad_stream", "grad_hidden", "grad_pre", "grad_post", "grad_res"),
    *("to_stream", "to_source", "to_update", "to_write_post", "to_write_res"),
    "to_parameters",
)


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "width", "iterations", "threads")),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


def run(
    kernel: str,
    stream: Tensor,
    tensors: Mapping[str, Tensor | None],
    parameters: Sequence[Tensor] = (),
    to_parameters: Sequence[Tensor] = (),
    *,
    iterations: int = 0,
    epsilon: float = 0.0,
) -> None:
    """Run `kernel` for a `stream` [..., n, C] and the other `tensors` that it takes, by name.

    All are contiguous, of one dtype (fp32 or fp64), and outlive the call.
    """
    n, width = stream.shape[-2:]
    if any(each is not None and each.dtype != stream.dtype for each in (*tensors.values(), *parameters)):
        raise TypeError(f"{kernel}: expected tensors of {stream.dtype} alone")
    given, wanted = _addresses(parameters), _addresses(to_parameters)
    call = _Call(
        tokens=stream.numel() // (n * width),
        width=width,
        iterations=iterations,
        threads=torch.get_num_threads(),
        epsilon=epsilon,
        stream=stream.data_ptr(),
        parameters=ctypes.addressof(given),
        to_parameters=ctypes.addressof(wanted),
        **{name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()},
    )
    getattr(kernels(n, stream.dtype), kernel)(ctypes.byref(call))


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))

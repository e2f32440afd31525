"""Maps are computed in fp32 at least: the dtype to compute in, and autocast kept out of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """`x` in fp32 at least; float64 stays, so that an oracle can run in it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def shaped(x: Tensor, *shape: int) -> Tensor:
    """`x` in another shape, as a result of its own: FSDP2 warns of modules that return views."""
    result: Tensor = torch.ops.aten._unsafe_view(x, shape)
    return result


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off for the device of `x`; nothing where it is off anyway (or unknown: meta tensors)."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def applied(function: type[torch.autograd.Function], stream: Tensor, *operands: Any) -> Any:
    """What an autograd function makes of the stream, with autocast off: it chooses its dtypes itself."""
    with without_autocast(stream):
        return function.apply(stream, *operands)  # type: ignore[no-untyped-call]

"""Checks of the stream's way through `expand`, `read`, `write` and `collapse`: shapes, sizes, results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mhc_bench.errors import UsageError
from mhc_bench.kit import toys
from mhc_bench.kit.outcome import Failed, largest
from mhc_bench.kit.subject import ROUNDING, Subject, arriving
from mhc_bench.residual import ResidualConnection, build, variant_options

WIDTHS = (8, 20, 64)


def shapes(subject: Subject) -> str:
    """Hidden state [B, T, C] and stream [B, T, ..., C] keep shape and dtype, in fp32 and bf16."""
    for dtype in (torch.float32, torch.bfloat16):
        _shapes_of(subject.fresh(), dtype)
    return ""


def _shapes_of(each: ResidualConnection, dtype: torch.dtype) -> None:
    start = toys.hidden(width=each.width, dtype=dtype)
    stream = each.expand(start)
    _expect("expand", stream, dtype, (*start.shape[:2], *stream.shape[2:-1], each.width))
    hidden, carry = each.read(stream)
    _expect("read", hidden, dtype, start.shape)
    written = each.write(stream, hidden, carry)
    # an axis of the variant's own may grow from sublayer to sublayer
    middle = written.shape[2:-1] if written.ndim == stream.ndim else stream.shape[2:-1]
    _expect("write", written, dtype, (*start.shape[:2], *middle, each.width))
    _expect("collapse", each.collapse(written), dtype, start.shape)


def _expect(method: str, found: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if found.dtype != dtype:
        raise Failed(f"{method} gives {found.dtype} where it got {dtype}", method)
    if tuple(found.shape) != tuple(shape):
        raise Failed(f"{method} gives shape {list(found.shape)}, expected {list(shape)}", method)


def sizes(subject: Subject) -> str:
    """Works with other widths, fewer streams (where there is an option `streams`), one token and one row."""
    cases: list[tuple[int, dict[str, Any]]] = [(width, {}) for width in WIDTHS]
    if "streams" in variant_options(subject.kind):
        cases += [(toys.WIDTH, {"streams": n}) for n in (2, 3)]
    refused = []
    for width, options in cases:
        told = f"width {width}" + "".join(f", {key} {value}" for key, value in options.items())
        try:
            _passes(subject, width, options, told)
        except UsageError as error:
            refused.append(f"{told}: {error}")
    if len(refused) == len(cases):
        raise Failed(f"refuses {'; '.join(refused)}", "__init__")
    return f"refuses {'; '.join(refused)}" if refused else ""


def _passes(subject: Subject, width: int, options: dict[str, Any], told: str) -> None:
    made = [
        build(subject.kind, width=width, depth=4, index=index, **{**subject.options, **options})
        for index in range(4)
    ]
    for batch, time in ((1, 1), (2, 5)):
        output = toys.run(made, toys.hidden(batch=batch, time=time, width=width, dtype=torch.float32))
        if output.shape != (batch, time, width) or not output.isfinite().all():
            raise Failed(f"{told}: shape {list(output.shape)} or not finite", "read")


def views(subject: Subject) -> str:
    """No result is a view of what was given: FSDP2 warns of it, for edits would pass by its hooks."""
    each, start = subject.fresh(), toys.hidden(dtype=torch.float32)
    stream = each.expand(start)
    hidden, carried = each.read(stream)
    written = each.write(stream, hidden, carried)
    results = [("expand", stream), ("read", hidden), *(("read", leaf) for leaf in tree_leaves(carried))]
    for method, result in [*results, ("write", written), ("collapse", each.collapse(written))]:
        if result._is_view():
            raise Failed(f"{method} gives a view: clone it, or see mhc_bench/residual/slots.py", method)
    return ""


def write_read(subject: Subject) -> str:
    """`write_read` equals `write` and then the next connection's `read`."""
    connections = subject.chain()
    first, second = connections[1], connections[2]
    stream = arriving(connections, 1)
    hidden, carried = first.read(stream)
    update = toys.fixed_sublayer(1, hidden)
    written, following, next_carry = first.write_read(stream, update, carried, second)
    expected = first.write(stream, update, carried)
    expected_hidden, expected_carry = second.read(expected)
    pairs = zip(tree_leaves(next_carry), tree_leaves(expected_carry), strict=True)
    for mine, other in ((written, expected), (following, expected_hidden), *pairs):
        if mine.shape != other.shape or largest(mine - other, other) > ROUNDING:
            raise Failed("write_read differs from write and then read", "write_read")
    return ""

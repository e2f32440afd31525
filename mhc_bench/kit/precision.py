"""Checks of the maps: told as they are used, and in fp32 whatever the model computes in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mhc_bench.kit import toys
from mhc_bench.kit.outcome import Failed, NotApplicable, largest
from mhc_bench.kit.subject import ROUNDING, Subject, arriving
from mhc_bench.residual import Maps

BF16_STEP = 2.0**-8
"""Largest relative error of a number rounded to bf16, with the sign of ties left open."""


def maps(subject: Subject) -> str:
    """The maps that it tells are those with which `read` and `write` compute."""
    connections = subject.chain()
    each, stream = connections[1], arriving(connections, 1)
    told = each.maps(stream)
    if told is None:
        raise NotApplicable("it tells no maps")
    n = told.pre.shape[-1]
    for name, shape in (("pre", (n,)), ("post", (n,)), ("res", (n, n))):
        found = list(getattr(told, name).shape)
        if found != [*stream.shape[:2], *shape]:
            raise Failed(
                f"maps gives {name} of shape {found}, expected [B, T, {'n, n' if name == 'res' else 'n'}]",
                "maps",
            )
    streams = stream.reshape(*stream.shape[:2], n, each.width)
    hidden, carried = each.read(stream)
    if largest(_read_by_hand(told, streams) - hidden, hidden) > ROUNDING:
        raise Failed("read differs from H_pre x of the maps that it tells", "read")
    update = toys.fixed_sublayer(3, hidden)
    written = each.write(stream, update, carried).reshape(streams.shape)
    if largest(_written_by_hand(told, streams, update) - written, written) > ROUNDING:
        turned = Maps(told.pre, told.post, told.res.mT)
        is_turned = largest(_written_by_hand(turned, streams, update) - written, written) <= ROUNDING
        hint = ": res is transposed, expected res[out, in]" if is_turned else ""
        raise Failed(f"write differs from H_res x + H_post^T F of the maps that it tells{hint}", "write")
    return ""


def _read_by_hand(told: Maps, streams: Tensor) -> Tensor:
    return (told.pre.unsqueeze(-1) * streams).sum(-2)


def _written_by_hand(told: Maps, streams: Tensor, update: Tensor) -> Tensor:
    """[B, T, n, C], one entry of a map at a time."""
    n = streams.shape[-2]
    rows = []
    for i in range(n):
        mixed = told.post[..., i, None] * update
        for j in range(n):
            mixed = mixed + told.res[..., i, j, None] * streams[..., j, :]
        rows.append(mixed)
    return torch.stack(rows, dim=-2)


def fp32_maps(subject: Subject) -> str:
    """In bf16 and under autocast, maps and carry are fp32 and results are within one bf16 rounding."""
    connections = [each.float() for each in subject.chain()]
    each = connections[1]
    stream = arriving(subject.chain(), 1, torch.bfloat16)
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            told = each.maps(stream)
            hidden, carried = each.read(stream)
        where = "under autocast" if autocast else "with a bf16 stream"
        exact, exact_carry = each.read(stream.float())
        _all_fp32(told, each.maps(stream.float()), where)
        for leaf in tree_leaves(carried):
            # the stream itself may travel in the carry, in its own dtype
            if leaf.is_floating_point() and leaf.shape != stream.shape and leaf.dtype != torch.float32:
                raise Failed(f"the carry holds {leaf.dtype} {where}, expected fp32", "read")
        _rounded_once("read", hidden, exact, where)
        update = toys.fixed_sublayer(1, exact).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            written = each.write(stream, update, carried)
        _rounded_once("write", written, each.write(stream.float(), update.float(), exact_carry), where)
    return ""


def _all_fp32(told: Maps | None, exact: Maps | None, where: str) -> None:
    for name, mine, other in zip(Maps._fields, told or (), exact or (), strict=False):
        if mine.dtype != torch.float32:
            raise Failed(f"H_{name} is {mine.dtype} {where}, expected fp32", "maps")
        if largest(mine - other, other) > 1e-5:
            raise Failed(
                f"H_{name} is off by {largest(mine - other, other):.1e} {where}: bf16 inside", "read"
            )


def _rounded_once(method: str, found: Tensor, exact: Tensor, where: str) -> None:
    if found.dtype != torch.bfloat16:
        raise Failed(f"{method} gives {found.dtype} {where}, expected bf16", method)
    if (error := largest(found.float() - exact, exact)) > 2 * BF16_STEP:
        raise Failed(f"{method} is off by {error:.1e} {where}, more than roundings of its result", method)


def autocast_gradients(subject: Subject) -> str:
    """Under autocast the gradients are those without it: maps stay out of it, forward and backward."""

    def gradient(autocast: bool) -> Tensor:
        each = subject.connection().float()
        start = toys.hidden(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            stream = each.expand(start)
            hidden, carried = each.read(stream)
            loss = each.collapse(each.write(stream, hidden, carried)).square().sum()
        loss.backward()
        assert start.grad is not None
        return start.grad

    plain = gradient(False)
    if (found := largest(gradient(True) - plain, plain)) > 1e-5:
        raise Failed(f"gradients under autocast are off by {found:.1e}: wrap in without_autocast", "read")
    return ""

"""Checks of what a connection may see, remember, draw and edit: nothing but its own token and its carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mhc_bench.kit import toys
from mhc_bench.kit.outcome import Failed, largest
from mhc_bench.kit.subject import ROUNDING, Subject, arriving
from mhc_bench.residual import ResidualConnection


def causality(subject: Subject) -> str:
    """A changed token changes nothing before it, and something from it on."""
    before = toys.hidden()
    after = before.clone()
    after[:, 3] += 1.0
    connections = subject.chain()
    change = (toys.run(connections, after) - toys.run(connections, before)).abs().amax((0, 2))
    if change[:3].max() > 0:
        method = _leaking(connections, lambda x: x[:, :3], lambda x: x[:, 3:].add_(1.0))
        raise Failed(f"position 3 changes what is before it by up to {change[:3].max():.1e}", method)
    if change[3:].min() == 0:
        raise Failed("a changed token changes nothing of what follows", "write")
    return ""


def batch_independence(subject: Subject) -> str:
    """No row of a batch sees another."""
    connections, both = subject.chain(), toys.hidden(batch=3)
    alone = torch.cat([toys.run(connections, row) for row in both.split(1)])
    together = toys.run(connections, both)
    if (found := largest(together - alone, alone)) > ROUNDING:
        method = _leaking(connections, lambda x: x[:1], lambda x: x[1:].add_(1.0))
        raise Failed(f"a row differs by {found:.1e}, relative, with others beside it", method)
    return ""


def _leaking(
    connections: list[ResidualConnection],
    watched: Callable[[Tensor], Tensor],
    disturb: Callable[[Tensor], object],
) -> str:
    """The method through which a disturbance of the stream reaches entries that must not see it."""
    each, stream = connections[1], arriving(connections, 1)
    other = stream.clone()
    disturb(other)
    (hidden, carry), (disturbed, other_carry) = each.read(stream), each.read(other)
    leaves = zip(tree_leaves(carry), tree_leaves(other_carry), strict=True)
    pairs = [(hidden, disturbed), *(pair for pair in leaves if pair[0].shape[:2] == stream.shape[:2])]
    if not all(torch.allclose(watched(a), watched(b), rtol=0, atol=1e-12) for a, b in pairs):
        return "read"
    return "write"


def carry(subject: Subject) -> str:
    """Nothing of a forward pass stays on `self`: what `write` needs is in the carry, a tuple of tensors."""
    each = subject.connection()
    before = _snapshot(vars(each))
    stream = arriving(subject.chain(), 1)
    hidden, carried = each.read(stream)
    each.collapse(each.write(stream, hidden, carried))
    each.maps(stream)
    after = _snapshot(vars(each))
    for name in sorted(after.keys() | before.keys()):
        if before.get(name) != after.get(name):
            raise Failed(f"a forward pass changes self.{name.partition('.')[0]}", name.partition(".")[0])
    if not isinstance(carried, tuple):
        raise Failed(f"the carry is a {type(carried).__name__}, expected a tuple of tensors", "read")
    if not all(isinstance(leaf, Tensor) for leaf in tree_leaves(carried)):
        raise Failed("the carry holds something else than tensors", "read")
    return ""


def _snapshot(values: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Attribute -> what tells whether it is still the same; inside containers and modules, too."""
    found: dict[str, object] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Tensor):
            found[key] = (id(value), value._version)
        elif isinstance(value, dict):
            inner = {str(k).lstrip("_"): v for k, v in value.items()}
            found |= _snapshot(inner, "" if name in ("_parameters", "_buffers", "_modules") else f"{key}.")
        elif isinstance(value, (list, tuple, set)):
            found[key] = (len(value), *(id(each) for each in value))
        else:
            found[key] = (id(value), repr(value) if isinstance(value, (int, float, str)) else "")
    return found


def in_place(subject: Subject) -> str:
    """Edits no tensor that it is given: embedding, stream or the sublayer's output."""
    each, stream = subject.connection(), arriving(subject.chain(), 1)
    start = toys.hidden()
    with torch.no_grad():
        _unchanged("expand", "the embedding", start, lambda: each.expand(start))
        hidden, carried = each.read(stream.clone())
        _unchanged("read", "the stream", stream, lambda: each.read(stream))
        update = toys.fixed_sublayer(1, hidden).clone()
        _unchanged("write", "the sublayer's output", update, lambda: each.write(stream, update, carried))
        _unchanged("write", "the stream", stream, lambda: each.write(stream, update, carried))
        _unchanged("collapse", "the stream", stream, lambda: each.collapse(stream))
    return ""


def _unchanged(method: str, what: str, tensor: Tensor, call: Callable[[], object]) -> None:
    version = tensor._version
    call()
    if tensor._version != version:
        raise Failed(f"{method} edits {what} in place", method)


def determinism(subject: Subject) -> str:
    """The same input gives the same bits, whatever torch's generator holds; nothing is drawn from it."""

    connections = subject.chain()

    def passed(seed: int) -> list[Tensor]:
        start = toys.hidden().requires_grad_()
        for each in connections:
            each.zero_grad()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        output = toys.run(connections, start)
        output.square().sum().backward()
        if not torch.equal(state, torch.get_rng_state()):
            raise Failed("a forward pass draws random numbers", _random_method(connections))
        grads = [start.grad, *(p.grad for each in connections for p in each.parameters())]
        return [output, *(grad for grad in grads if grad is not None)]

    with torch.random.fork_rng(devices=[]):
        first, second = passed(1), passed(2)
    if not all(map(torch.equal, first, second)):
        raise Failed("two passes over the same input differ", "read")
    return ""


def _random_method(connections: list[ResidualConnection]) -> str:
    """The method that draws."""
    each, stream = connections[1], arriving(connections, 1)
    state = torch.get_rng_state()
    each.read(stream)
    return "read" if not torch.equal(state, torch.get_rng_state()) else "write"

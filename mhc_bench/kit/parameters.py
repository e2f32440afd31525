"""Checks of a connection's own parameters: what learns, what is declared, where it starts, what it costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mhc_bench.kit import toys
from mhc_bench.kit.outcome import Failed, place_of
from mhc_bench.kit.subject import Subject
from mhc_bench.model import count_parameters, flops_per_token
from mhc_bench.model.layers import parameter_owners
from mhc_bench.residual import ResidualConnection

ZERO = 1e-10
"""Beside the largest gradient, where parameters are away from their start: below is rounding alone."""
DEAD = 0.0
"""One step after the start, where gates and symmetric starts may still hide all but 1e-37 of a gradient."""

CONTEXT = 64
"""Tokens of the sequences for which FLOPs are counted."""

Gradients = dict[tuple[int, str], Tensor | None]


def gradients(subject: Subject) -> str:
    """Every parameter gets a finite gradient that is not zero, after a step too, unless declared inert."""
    moved, stepped = subject.chain(), _stepped(subject)
    for each in moved:
        for own, parameter in each.named_parameters():
            if not parameter.requires_grad:
                raise Failed(f"{place_of(own, each)} is frozen: requires_grad is false", own)
    for connections, limit, when in (
        (moved, ZERO, "away from its start"),
        (stepped, DEAD, "after a step"),
    ):
        found = _gradients(connections)
        scale = _largest_of(found)
        for (index, own), gradient in found.items():
            _moves(place_of(own, connections[index]), own, gradient, limit * scale, when)
    return ""


def _moves(place: str, own: str, gradient: Tensor | None, limit: float, when: str) -> None:
    if gradient is None:
        raise Failed(f"{place} is unused: no gradient reaches it", own)
    if not gradient.isfinite().all():
        raise Failed(f"the gradient of {place} is not finite {when}", own)
    if float(gradient.abs().max()) <= limit:
        reason = f"the gradient of {place} is zero {when}: use it, or name it in inert_parameters"
        raise Failed(reason, own)


def inert(subject: Subject) -> str:
    """What is declared inert has no gradient, wherever its parameters are."""
    connections = subject.chain()
    found = _gradients(connections, inert=True)
    scale = _largest_of(_gradients(connections))
    for (index, own), gradient in found.items():
        size = 0.0 if gradient is None else float(gradient.abs().max())
        if size > ZERO * scale:
            place = place_of(own, connections[index])
            raise Failed(f"{place} is declared inert and has a gradient of {size:.1e}", "inert_parameters")
    return ", ".join(place_of(own, connections[index]) for index, own in found)


def _gradients(connections: list[ResidualConnection], *, inert: bool = False) -> Gradients:
    """(index, own name) -> gradient of a loss that looks at every entry of the chain's output."""
    for each in connections:
        each.zero_grad()
    _loss(connections).backward()
    return {
        (index, own): parameter.grad
        for index, each in enumerate(connections)
        for own, parameter in each.named_parameters()
        if (own in each.inert_parameters()) == inert
    }


def _largest_of(found: Gradients) -> float:
    return max([float(each.abs().max()) for each in found.values() if each is not None], default=1.0)


def _loss(connections: list[ResidualConnection]) -> Tensor:
    output = toys.run(connections, toys.hidden().requires_grad_())
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=output.dtype)
    return (output * weights).sum()


def _stepped(subject: Subject) -> list[ResidualConnection]:
    """Connections from their start, one step of AdamW later."""
    connections = [subject.fresh(index).double() for index in range(4)]
    own = [parameter for each in connections for parameter in each.parameters()]
    if own:
        optimizer = torch.optim.AdamW(own, lr=1e-2)
        _loss(connections).backward()
        optimizer.step()
    return connections


def declarations(subject: Subject) -> str:
    """Decayed, gate and inert parameters are its own; matrices alone decay; none is a scalar."""
    for each in subject.chain():
        own = dict(each.named_parameters())
        for method in ("decayed_parameters", "gate_parameters", "inert_parameters"):
            if unknown := sorted(getattr(each, method)() - own.keys()):
                raise Failed(f"{method} names {unknown[0]}, which is no parameter of its own", method)
        _declared_well(each, own)
    return ""


def _declared_well(each: ResidualConnection, own: dict[str, nn.Parameter]) -> None:
    decayed, gates = each.decayed_parameters(), each.gate_parameters()
    for name, parameter in own.items():
        if parameter.ndim == 0:
            raise Failed(f"{name} has no axis: FSDP2 takes no scalars, use shape [1]", name)
        if name in decayed and parameter.ndim == 1:
            raise Failed(f"{name} decays and is no matrix", "decayed_parameters")
        if name in decayed & gates:
            raise Failed(f"{name} is a gate and decays", "decayed_parameters")
        if name in gates and parameter.numel() != 1:
            raise Failed(f"gate {name} has {parameter.numel()} entries, expected 1", "gate_parameters")


def initial_values(subject: Subject) -> str:
    """Start values come from the generator alone: fp32, on the CPU, the same each time."""
    each = subject.fresh(2)
    for own, parameter in each.named_parameters():
        first, second = (each.initial_value(own, torch.Generator().manual_seed(5)) for _ in range(2))
        if not torch.equal(first, second):
            raise Failed(f"two draws of {own} from the same generator differ", "initial_value")
        if (first.shape, first.dtype, first.device.type) != (parameter.shape, torch.float32, "cpu"):
            reason = f"{own} starts as {first.dtype} {list(first.shape)} on {first.device.type}"
            raise Failed(f"{reason}, expected fp32 {list(parameter.shape)} on the CPU", "initial_value")
        if parameter.dtype != torch.float32:
            raise Failed(f"{own} is {parameter.dtype}, expected fp32", own)
    try:
        each.initial_value("no_such_parameter", torch.Generator())
    except LookupError:
        return ""
    raise Failed("initial_value takes a parameter that does not exist: end with super()", "initial_value")


def building(subject: Subject) -> str:
    """Building draws nothing from torch's generator, follows its seed, and works on the meta device."""

    def weights(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        made = [each.detach() for each in subject.fresh().parameters()]
        if not torch.equal(state, torch.get_rng_state()):
            raise Failed("building draws from torch's generator", "__init__")
        return made

    with torch.random.fork_rng(devices=[]):
        if not all(torch.equal(a, b) for a, b in zip(weights(1), weights(1), strict=True)):
            raise Failed("two of the same seed differ: call reset_parameters last in __init__", "__init__")
    with torch.device("meta"):
        each = subject.fresh()
        stream = each.expand(torch.empty(2, 5, toys.WIDTH))
        hidden, carried = each.read(stream)
        each.collapse(each.write(stream, hidden, carried))
    if not all(parameter.is_meta for parameter in each.parameters()):
        raise Failed("a parameter made on the meta device is elsewhere", "__init__")
    return ""


def overhead(subject: Subject) -> str:
    """What it adds is counted: parameters and matrix FLOPs; no tensor that learns escapes the count."""
    for each in subject.chain():
        for name, value in vars(each).items():
            hidden = value if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(part, Tensor) for part in hidden):
                raise Failed(f"self.{name} is a tensor and no parameter: nothing counts or shards it", name)
    model, plain = subject.grafted(), subject.backbone.stock()
    counted, owned = count_parameters(model), parameter_owners(model)
    here = sum(parameter.numel() for parameter in _own_parameters(subject))
    if counted["residual"] != here or sum(1 for _ in model.parameters()) != len(owned) + _number(plain):
        raise Failed(f"{here} parameters, of which the model counts {counted['residual']}", "__init__")
    base = flops_per_token(plain, CONTEXT)
    flops = flops_per_token(model, CONTEXT) - base
    share = here / sum(each.numel() for each in plain.parameters())
    return f"+{here} parameters (+{share:.2%}), +{flops} FLOPs per token (+{flops / base:.2%})"


def _own_parameters(subject: Subject) -> list[nn.Parameter]:
    """Of all connections of the backbone's depth."""
    config: Any = subject.backbone.stock().config
    depth = 2 * config.num_hidden_layers
    made = [subject.fresh(index, width=config.hidden_size, depth=depth) for index in range(depth)]
    return [parameter for each in made for parameter in each.parameters()]


def _number(model: nn.Module) -> int:
    return sum(1 for _ in model.parameters())

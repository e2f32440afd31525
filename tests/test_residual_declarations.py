"""What connections declare of themselves, against what numbers say: inert, gates, decay, start; fused passes.

Over the registry, and for each option with few choices over those: a new variant is tested without a line.
"""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from residual_toys import WIDTH, chain, fixed_sublayer, hidden, run
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops.choice import operations_named
from mhc_bench.residual import ResidualConnection, build, resolve, variant_names
from mhc_bench.residual.registry import variant_options

DEPTH = 4
ROUNDING = 5e-15
"""Of a gradient beside the largest, in float64. What is left of H_res's by Sinkhorn's error alone is more."""
NOTHING = 1e-10
"""Of a difference between tokens."""


TOGETHER = {"mhc": [{"sinkhorn_order": "rows_columns", "reduction": "learned"}]}
"""Choices that decide something with one another."""


def choices(name: str) -> list[dict[str, Any]]:
    """The defaults, and each option with few choices at each of them."""
    cls = resolve(name)
    hints = get_type_hints(inspect.getattr_static(cls, "__init__"))
    found: list[dict[str, Any]] = [{}]
    for option in variant_options(cls):
        plain = hints[option]
        if option in ("streams", "fractions"):
            found += [{option: value} for value in (1, 2, 3)]
        elif get_origin(plain) is Literal:
            found += [{option: value} for value in get_args(plain)]
        elif plain is bool:
            found += [{option: value} for value in (False, True)]
    return [each for each in [*found, *TOGETHER.get(name, [])] if allowed(name, each)]


def allowed(name: str, options: dict[str, Any]) -> bool:
    """Some choices make sense in company only."""
    try:
        build(name, width=WIDTH, depth=DEPTH, index=0, **options)
    except UsageError:
        return False
    return True


SETTINGS = [(name, options) for name in variant_names() for options in choices(name)]
EVERY = pytest.mark.parametrize(
    ("name", "options"), SETTINGS, ids=lambda value: str(value).translate(str.maketrans("", "", "{}'"))
)


def gradients(connections: list[ResidualConnection]) -> dict[tuple[int, str], float]:
    """(index, own name) -> the largest entry of the gradient of a loss that looks at all of the output."""
    output = run(connections, hidden().requires_grad_())
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=output.dtype)
    (output * weights).sum().backward()
    return {
        (index, own): 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
        for index, each in enumerate(connections)
        for own, parameter in each.named_parameters()
    }


@EVERY
def test_inert_is_what_gets_no_gradient_and_nothing_else(name: str, options: dict[str, Any]) -> None:
    connections = chain(name, **options)
    found = gradients(connections)
    largest = max(found.values(), default=0.0)
    declared = {(index, own) for index, each in enumerate(connections) for own in each.inert_parameters()}
    assert declared == {place for place, size in found.items() if size <= ROUNDING * largest}


def is_projection(own: str, parameter: Tensor) -> bool:
    """A matrix that takes a token's channels in or gives them out, and not a static map's entries."""
    return parameter.ndim > 1 and not own.startswith(("static", "bias"))


@EVERY
def test_projections_decay_and_static_maps_biases_and_gates_do_not(
    name: str, options: dict[str, Any]
) -> None:
    for each in chain(name, **options):
        expected = {own for own, parameter in each.named_parameters() if is_projection(own, parameter)}
        assert each.decayed_parameters() == expected
        assert all(each.get_parameter(own).numel() == 1 for own in each.gate_parameters())


@EVERY
def test_a_projection_multiplies_as_many_vectors_as_fit_into_what_a_token_has(
    name: str, options: dict[str, Any]
) -> None:
    for each in chain(name, **options):
        own = {name: parameter for name, parameter in each.named_parameters() if parameter.ndim > 1}
        vectors = each.vectors_per_token()
        assert vectors.keys() <= own.keys()
        for matrix, parameter in own.items():
            channels = getattr(each, "streams", 1) * WIDTH
            # LAuReL's upward map gives a token's channels out
            expected = 1 if matrix == "up" else channels // parameter.shape[-1]
            assert vectors.get(matrix, 1) == (expected if is_projection(matrix, parameter) else 0)


def dynamic(connection: ResidualConnection, gates: frozenset[str]) -> bool:
    """Whether the maps differ between tokens when these gates alone are open."""
    kept = {own: connection.get_parameter(own).detach().clone() for own in connection.gate_parameters()}
    with torch.no_grad():
        for own in kept.keys() - gates:
            connection.get_parameter(own).zero_()
        stream = connection.expand(hidden())
        generator = torch.Generator().manual_seed(3)
        stream = stream + torch.randn(stream.shape, generator=generator, dtype=stream.dtype)
        maps = connection.maps(stream)
        assert maps is not None
        parts = [each.flatten(0, 1) for each in maps]
        for own, value in kept.items():
            connection.get_parameter(own).copy_(value)
    return any(float((each - each[:1]).abs().max()) > NOTHING for each in parts)


@EVERY
def test_gates_are_what_opens_the_dynamic_part_of_a_map(name: str, options: dict[str, Any]) -> None:
    for each in chain(name, **options):
        gates = each.gate_parameters()
        assert gates == {own for own, _ in each.named_parameters() if own.startswith(("alpha_", "scale_"))}
        if not gates or each.maps(each.expand(hidden())) is None:
            continue
        assert not dynamic(each, frozenset())
        constant = {own for own in each.inert_parameters() if options.get("streams") == 1}
        for own in gates - constant:
            assert dynamic(each, frozenset({own})), own


def normalised(state: Tensor) -> Tensor:
    """What a final norm makes of a hidden state [..., C]."""
    return torch.nn.functional.rms_norm(state, (WIDTH,), eps=1e-6)


def sublayer(index: int, read: Tensor) -> Tensor:
    """F with a pre-norm, as every sublayer of a decoder has one."""
    return fixed_sublayer(index, normalised(read))


@EVERY
def test_the_start_is_where_it_is_declared(name: str, options: dict[str, Any]) -> None:
    outputs = []
    for variant, own in (("baseline", {}), (name, options)):
        made = [build(variant, width=WIDTH, depth=DEPTH, index=index, **own) for index in range(DEPTH)]
        outputs.append(run(made, hidden(dtype=torch.float32), sublayer).detach())
    declared = made[0].start()
    difference = float((normalised(outputs[1]) - normalised(outputs[0])).abs().max())
    assert {each.start() for each in made} == {declared}
    match declared.kind:
        case "exact":
            assert torch.equal(*outputs) and declared.tolerance == 0
        case "approximate":
            assert difference <= declared.tolerance <= 1e-4
        case "own":
            assert (difference > 1e-6 or options) and declared.tolerance == 0
        case unknown:
            pytest.fail(unknown)


@EVERY
@pytest.mark.parametrize("operations", ["reference", "eager"])
def test_a_write_and_the_next_read_in_one_are_the_two_in_turn(
    name: str, options: dict[str, Any], operations: str
) -> None:
    connections = chain(name, **options)
    for each in connections:
        each.use_operations(operations_named(operations))
    stream = connections[0].expand(hidden())
    for index, (this, after) in enumerate(pairwise(connections)):
        read, carry = this.read(stream)
        update = fixed_sublayer(index, read)
        written = this.write(stream, update, carry)
        expected, next_carry = after.read(written)
        found = this.write_read(stream, update, carry, after)
        torch.testing.assert_close(found[:2], (written, expected))
        torch.testing.assert_close(tuple(found[2]), tuple(next_carry))
        stream = written


def test_a_mixing_matrix_that_is_the_identity_has_no_start_values() -> None:
    made: Any = build("mhc-identity", width=WIDTH, depth=DEPTH, index=1)
    with torch.device("meta"):
        assert made.initial_mixing().shape == (0,)
        assert made.initial_mixing().device.type == "cpu"


class Sums(ResidualConnection):
    """Reads a sum of the streams, and is none of the kinds that fuse."""

    def expand(self, hidden: Tensor) -> Tensor:
        return hidden.unsqueeze(-2)

    def read(self, stream: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        return stream.sum(-2), (stream[..., 0, :],)

    def write(self, stream: Tensor, update: Tensor, carry: tuple[Any, ...]) -> Tensor:
        return stream + update.unsqueeze(-2)

    def collapse(self, stream: Tensor) -> Tensor:
        return stream.sum(-2)


@pytest.mark.parametrize("name", ["hc", "mhc", "mhc-static", "mhc-identity"])
def test_a_connection_that_fuses_writes_ahead_of_one_that_does_not(name: str) -> None:
    this, after = chain(name)[1], Sums(width=WIDTH, depth=DEPTH, index=2)
    stream = this.expand(hidden())
    read, carry = this.read(stream)
    update = fixed_sublayer(1, read)
    written, total, next_carry = this.write_read(stream, update, carry, after)
    torch.testing.assert_close(written, this.write(stream, update, carry))
    assert torch.equal(total, written.sum(-2)) and torch.equal(next_carry[0], written[..., 0, :])

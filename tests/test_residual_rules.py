"""What every residual connection keeps: start values, precision, leading dimensions, ranges of options."""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from residual_toys import WIDTH, chain, hidden, run
from test_residual_declarations import SETTINGS
from torch import Tensor

from mhc_bench.config.parts import read_variant
from mhc_bench.config.parts import variant_names as shipped_variants
from mhc_bench.errors import UsageError
from mhc_bench.residual import build, resolve, variant_names
from mhc_bench.residual.registry import variant_options

EVERY = pytest.mark.parametrize("name", variant_names())
PLACE = {"width": WIDTH, "depth": 4, "index": 1}
LARGEST = {
    "epsilon": 1e-2,
    "additive_epsilon": 1e-2,
    "alpha": 10.0,
    "scale": 10.0,
    "contrast": 4.0,
    "diagonal_offset": 16.0,
    "identity_margin": 100.0,
    "value_scale": 100.0,
    "target": 1.0,
}
"""Of an option by its name, in whatever variant."""
SMALL = {"target": 0.3}
"""Allowed where a thousandth of the largest is not: the target lies behind the source."""
FROM_ZERO = {"additive_epsilon", "diagonal_offset", "identity_margin"}
"""0 itself is allowed."""
RANGES = [
    (name, option)
    for name in variant_names()
    for option in variant_options(resolve(name))
    if option in LARGEST
]

FURTHER_FORMS = [("attnres", {"blocks": 1}), ("mhc", {"reduction": "learned"})]
"""Those that go other ways through a connection."""


def sublayer(index: int, read: Tensor) -> Tensor:
    """Some F of each token by itself [..., C]."""
    generator = torch.Generator().manual_seed(index)
    return torch.tanh(read @ torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64).to(read))


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in variant_names()), *FURTHER_FORMS])
def test_a_token_is_the_same_under_any_leading_dimensions(name: str, options: dict[str, Any]) -> None:
    connections, start = chain(name, **options), hidden()
    expected = run(connections, start, sublayer)
    for shape in ((-1, WIDTH), (*start.shape[:2], 1, WIDTH)):
        found = run(connections, start.reshape(shape), sublayer)
        torch.testing.assert_close(found.reshape(expected.shape), expected)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("other", [torch.float32, torch.bfloat16])
def test_streams_keep_their_precision(name: str, dtype: torch.dtype, other: torch.dtype) -> None:
    """`other` is the update's: a sublayer under autocast, or with an fp32 norm after it, gives another."""
    connections = [build(name, **{**PLACE, "index": index}) for index in range(PLACE["depth"])]
    stream = connections[0].expand(hidden(dtype=dtype))
    # the plain residual adds as transformers does
    expected = torch.promote_types(dtype, other) if name == "baseline" else dtype
    for index, made in enumerate(connections):
        read, carry = made.read(stream)
        assert read.dtype == stream.dtype
        stream = made.write(stream, sublayer(index, read).to(other), carry)
        assert stream.dtype == expected
    assert connections[-1].collapse(stream).dtype == expected


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_there_is_one_of_each_map_for_every_token_in_fp32_at_least(name: str, dtype: torch.dtype) -> None:
    made = build(name, **PLACE)
    if dtype == torch.float64:
        made = made.double()
    stream = made.expand(hidden(dtype=dtype))
    maps = made.maps(stream)
    if maps is None:
        return
    n = maps.pre.shape[-1]
    tokens = hidden().shape[:2]
    assert [each.shape for each in maps] == [(*tokens, n), (*tokens, n), (*tokens, n, n)]
    assert {each.dtype for each in maps} == {torch.promote_types(dtype, torch.float32)}


@EVERY
def test_what_is_computed_lies_where_its_stream_does_whatever_the_defaults(name: str) -> None:
    connections = [build(name, **{**PLACE, "index": index}) for index in range(PLACE["depth"])]
    start = hidden(dtype=torch.float32)

    def computed() -> list[Tensor]:
        stream, found = connections[0].expand(start), []
        for made in connections:
            read, carry = made.read(stream)
            found += [read, *carry, *(made.maps(stream) or ())]
            stream = made.write(stream, torch.tanh(read), carry)
        return [each for each in [*found, connections[-1].collapse(stream)] if isinstance(each, Tensor)]

    expected = computed()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = computed()
    finally:
        torch.set_default_dtype(torch.float32)
    for each, same in zip(found, expected, strict=True):
        assert (each.device.type, each.dtype) == ("cpu", same.dtype)
        assert torch.equal(each, same)


@pytest.mark.parametrize("name", [name for name in shipped_variants() if name in variant_names()])
def test_an_option_that_is_not_given_is_the_one_of_the_shipped_configuration(name: str) -> None:
    part = read_variant(name)
    assert part["connection"] == name
    assert part.get("options", {}).items() <= variant_options(resolve(name)).items()
    given, start = chain(name, **part.get("options", {})), hidden()
    left_out = chain(name)
    assert torch.equal(run(given, start, sublayer), run(left_out, start, sublayer))
    for one, other in zip(given, left_out, strict=True):
        assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_additive_epsilon_lies_on_top_of_h_pre(precision: str) -> None:
    torch.manual_seed(3)
    stream = build("mhc", **PLACE).expand(hidden(dtype=torch.float32))
    pre = []
    for epsilon in (0.0, 2**-7):
        torch.manual_seed(3)
        maps = build("mhc", **PLACE, map_precision=precision, additive_epsilon=epsilon).maps(stream)
        assert maps is not None
        pre.append(maps.pre)
    torch.testing.assert_close(pre[1] - pre[0], torch.full_like(pre[0], 2**-7), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "name", [name for name in variant_names() if "sinkhorn_iterations" in variant_options(resolve(name))]
)
def test_one_round_of_sinkhorn_is_allowed(name: str) -> None:
    made = build(name, **PLACE, sinkhorn_iterations=1)
    maps = made.maps(made.expand(hidden(dtype=torch.float32)))
    assert maps is not None
    torch.testing.assert_close(maps.res.sum(-1), torch.ones_like(maps.res.sum(-1)))


@EVERY
def test_parameters_are_fp32_in_a_model_of_any_precision(name: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        made = build(name, **PLACE)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {each.dtype for each in made.parameters()} <= {torch.float32}


@pytest.mark.parametrize(("name", "options"), SETTINGS)
@pytest.mark.parametrize("index", [0, 3])
def test_start_values_come_from_the_given_generator_alone_and_lie_on_the_cpu(
    name: str, options: dict[str, Any], index: int
) -> None:
    made = build(name, **{**PLACE, "index": index}, **options)
    for own, parameter in made.named_parameters():
        values = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            with torch.device("meta"):
                values.append(made.initial_value(own, torch.Generator("cpu").manual_seed(7)))
        assert values[0].device.type == "cpu" and values[0].dtype == torch.float32
        assert values[0].shape == parameter.shape and torch.equal(*values)


@EVERY
def test_a_parameter_that_is_not_there_is_named(name: str) -> None:
    for made in (build(name, **{**PLACE, "index": index}) for index in range(PLACE["depth"])):
        for own in ("nothing", "phi_nothing", "bias_", "weight_nothing", "nothing_pre"):
            with pytest.raises(
                LookupError, match=f"^{type(made).__name__} gives no initial value for '{own}'$"
            ):
                made.initial_value(own, torch.Generator())


def nonsense(hint: Any) -> list[Any]:
    """Values that no option of this type takes."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is Literal:
        return ["no such choice"]
    plain = parts[0] if parts else hint
    return {int: [-1], float: [-1.0, math.nan, math.inf]}.get(plain, [])


@EVERY
def test_an_option_that_makes_no_sense_is_refused_by_its_name_in_a_direct_call_too(name: str) -> None:
    cls = resolve(name)
    hints = get_type_hints(inspect.getattr_static(cls, "__init__"))
    for option in variant_options(cls):
        for value in nonsense(hints[option]):
            for make in (cls, lambda **options: build(name, **options)):
                with pytest.raises(UsageError, match=rf"\b{option}\b"):
                    make(**PLACE, **{option: value})


@pytest.mark.parametrize(("name", "option"), RANGES)
def test_an_option_ends_where_its_range_does(name: str, option: str) -> None:
    largest = LARGEST[option]
    build(name, **PLACE, **{option: largest})
    build(name, **PLACE, **{option: SMALL.get(option, 1e-3 * largest)})
    outside = [1.001 * largest, *([] if option in FROM_ZERO else [0.0])]
    for value in outside:
        with pytest.raises(UsageError, match=rf"\b{option} "):
            build(name, **PLACE, **{option: value})
    if option in FROM_ZERO:
        build(name, **PLACE, **{option: 0.0})

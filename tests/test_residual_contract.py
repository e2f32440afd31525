"""What every registered connection must do; a new variant is tested here without a line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from residual_toys import WIDTH, chain, connection, fixed_sublayer, hidden, run
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from mhc_bench.errors import UsageError
from mhc_bench.residual import ResidualConnection, build, resolve, variant_names, variant_options

EVERY = pytest.mark.parametrize("name", variant_names())
HAND_WRITTEN = ("baseline", "hc", "mhc")
"""Their backward passes are their own, and leave autocast by themselves."""
CASES = [
    (name, {"streams": n} if "streams" in variant_options(resolve(name)) else {})
    for name in variant_names()
    for n in (1, 2, 4)
    if n == 4 or "streams" in variant_options(resolve(name))
]
SIZES = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{name}{options.get('streams', '')}" for name, options in CASES]
)


def gradients(connections: list[ResidualConnection]) -> dict[str, torch.Tensor]:
    """Index.name -> gradient of a loss that looks at every entry of the chain's output."""
    output = run(connections, hidden().requires_grad_())
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).double()).sum().backward()
    found = {}
    for each in connections:
        for own, parameter in each.named_parameters():
            assert parameter.grad is not None, (each.index, own)
            found[f"{each.index}.{own}"] = parameter.grad
    return found


@SIZES
def test_shapes_and_dtypes_of_hidden_state_and_stream_are_kept(name: str, options: dict[str, Any]) -> None:
    each = build(name, width=WIDTH, depth=4, index=2, **options)
    for dtype in (torch.float32, torch.bfloat16):
        stream = each.expand(hidden(dtype=dtype))
        read, carry = each.read(stream)
        written = each.write(stream, read, carry)
        assert (read.shape, read.dtype) == ((2, 5, WIDTH), dtype)
        # an axis of the variant's own may grow from sublayer to sublayer
        assert (written.ndim, written.shape[:2], written.shape[-1]) == (stream.ndim, (2, 5), stream.shape[-1])
        assert written.dtype == stream.dtype == dtype
        assert (each.collapse(written).shape, each.collapse(written).dtype) == ((2, 5, WIDTH), dtype)


@SIZES
def test_no_position_sees_a_later_one(name: str, options: dict[str, Any]) -> None:
    connections, before = chain(name, **options), hidden()
    after = before.clone()
    after[:, 3] += 1.0
    change = (run(connections, after) - run(connections, before)).abs().amax((0, 2))
    assert change[:3].max() == 0 and change[3:].min() > 0


@SIZES
def test_no_row_of_a_batch_sees_another(name: str, options: dict[str, Any]) -> None:
    connections, both = chain(name, **options), hidden(batch=3)
    alone = torch.cat([run(connections, row) for row in both.split(1)])
    torch.testing.assert_close(run(connections, both), alone, rtol=1e-10, atol=1e-12)


@SIZES
def test_every_gradient_is_finite_and_only_declared_parameters_have_none(
    name: str, options: dict[str, Any]
) -> None:
    connections = chain(name, **options)
    found = gradients(connections)
    inert = {f"{each.index}.{own}" for each in connections for own in each.inert_parameters()}
    assert inert <= set(found)
    for own, gradient in found.items():
        assert gradient.isfinite().all(), own
        assert (gradient.abs().max() < 1e-10) == (own in inert), (own, gradient.abs().max())


@SIZES
def test_what_a_connection_says_of_its_parameters_names_its_parameters(
    name: str, options: dict[str, Any]
) -> None:
    for each in chain(name, **options):
        own = dict(each.named_parameters())
        decayed, gates = each.decayed_parameters(), each.gate_parameters()
        assert decayed | gates | each.inert_parameters() <= set(own)
        assert not decayed & gates
        assert all(own[gate].numel() == 1 for gate in gates)
        assert all(own[matrix].ndim > 1 for matrix in decayed)
        assert all(parameter.ndim > 0 for parameter in own.values())  # FSDP2 takes no scalars


@SIZES
def test_start_values_come_from_the_generator_alone(name: str, options: dict[str, Any]) -> None:
    each = build(name, width=WIDTH, depth=4, index=2, **options)
    for own, parameter in each.named_parameters():
        first, second = (each.initial_value(own, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, second)
        assert (first.shape, first.dtype, first.device.type) == (parameter.shape, torch.float32, "cpu")
    with pytest.raises(LookupError, match="no_such"):
        each.initial_value("no_such", torch.Generator())


@EVERY
def test_building_draws_nothing_from_the_global_generator_and_follows_its_seed(name: str) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        made = list(build(name, width=WIDTH, depth=4, index=1).state_dict().values())
        assert torch.equal(state, torch.get_rng_state())
        return made

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(1), strict=True))


@EVERY
def test_reading_and_writing_leave_nothing_on_the_connection(name: str) -> None:
    each = connection(name)
    before = dict(vars(each))
    stream = each.expand(hidden())
    read, carry = each.read(stream)
    each.write(stream, read, carry)
    assert vars(each).keys() == before.keys()
    assert all(vars(each)[key] is value for key, value in before.items())
    assert isinstance(carry, tuple) and all(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(carry))


@EVERY
def test_no_result_is_a_view(name: str) -> None:
    """FSDP2 warns of modules that return one: an operation in place would pass by its hooks."""
    each, start = connection(name).float(), hidden(dtype=torch.float32)
    stream = each.expand(start)
    read, carry = each.read(stream)
    written = each.write(stream, read, carry)
    results = (stream, read, *carry, written, each.collapse(written))
    assert not any(result._is_view() for result in results)


@EVERY
def test_maps_are_those_that_read_and_write_use(name: str) -> None:
    each = connection(name)
    stream = torch.randn(each.expand(hidden()).shape).double()
    maps = each.maps(stream)
    if maps is None:
        pytest.skip(f"{name} has no mixing matrix")
    read, carry = each.read(stream)
    update = torch.randn(read.shape).double()
    n = maps.pre.shape[-1]
    assert maps.post.shape == maps.pre.shape == (2, 5, n) and maps.res.shape == (2, 5, n, n)
    streams = stream.view(2, 5, n, WIDTH)
    torch.testing.assert_close((maps.pre.unsqueeze(-1) * streams).sum(-2), read)
    written = each.write(stream, update, carry).view(streams.shape)
    by_hand = torch.stack(
        [
            sum(
                (maps.res[..., i, j, None] * streams[..., j, :] for j in range(n)),
                maps.post[..., i, None] * update,
            )
            for i in range(n)
        ],
        dim=-2,
    )
    torch.testing.assert_close(written, by_hand)


@EVERY
@pytest.mark.parametrize("autocast", [False, True])
def test_maps_are_fp32_whatever_the_stream_and_autocast_say(name: str, autocast: bool) -> None:
    each = connection(name).float()
    stream = torch.randn(each.expand(hidden()).shape)
    exact = each.maps(stream.bfloat16().float())
    if exact is None:
        pytest.skip(f"{name} has no mixing matrix")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        maps = each.maps(stream.bfloat16())
        _, carry = each.read(stream.bfloat16())
    for mine, other in zip(maps, exact, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    in_carry = [leaf for leaf in tree_leaves(carry) if leaf.shape != stream.shape]
    assert all(leaf.dtype == torch.float32 for leaf in in_carry)


@pytest.mark.parametrize(
    ("name", "backward_too"),
    [*((name, False) for name in variant_names()), *((name, True) for name in HAND_WRITTEN)],
)
def test_gradients_under_autocast_equal_those_without(name: str, backward_too: bool) -> None:
    """Composed operations need the backward pass outside autocast, as torch asks."""

    def gradient(autocast: bool) -> torch.Tensor:
        each, start = connection(name).float(), hidden(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            stream = each.expand(start)
            read, carry = each.read(stream)
            loss = each.collapse(each.write(stream, read, carry)).square().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and backward_too):
            loss.backward()
        assert start.grad is not None
        return start.grad

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-5, atol=1e-5)


@EVERY
def test_write_read_equals_write_and_then_read(name: str) -> None:
    first, second = chain(name)[:2]
    stream = torch.randn(first.expand(hidden()).shape).double()
    read, carry = first.read(stream)
    written, following, next_carry = first.write_read(stream, read, carry, second)
    torch.testing.assert_close(written, first.write(stream, read, carry))
    expected, expected_carry = second.read(written)
    torch.testing.assert_close(following, expected)
    assert all(torch.equal(a, b) for a, b in zip(next_carry, expected_carry, strict=True))


@EVERY
def test_activation_checkpointing_changes_no_gradient(name: str) -> None:
    def gradient(recompute: bool) -> list[torch.Tensor]:
        connections = chain(name)
        start = hidden().requires_grad_()
        output = (
            checkpoint(run, connections, start, use_reentrant=False) if recompute else run(connections, start)
        )
        output.square().sum().backward()
        grads = [start.grad, *(p.grad for each in connections for p in each.parameters())]
        return [each for each in grads if each is not None]

    plain, recomputed = gradient(False), gradient(True)
    assert len(plain) == len(recomputed) and all(map(torch.equal, plain, recomputed))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@EVERY
def test_compiles_as_one_graph_with_the_same_gradients(name: str) -> None:
    each = connection(name)

    def step(start: torch.Tensor) -> torch.Tensor:
        stream = each.expand(start)
        read, carry = each.read(stream)
        return each.collapse(each.write(stream, fixed(read), carry))

    def fixed(read: torch.Tensor) -> torch.Tensor:
        return torch.tanh(read)

    results = []
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        start = hidden().requires_grad_()
        each.zero_grad()
        function(start).square().sum().backward()
        results.append([start.grad, *(p.grad for p in each.parameters())])
    torch._dynamo.reset()
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)


@EVERY
def test_works_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        each = build(name, width=WIDTH, depth=4, index=1)
        stream = each.expand(torch.empty(2, 5, WIDTH))
        read, carry = each.read(stream)
        written = each.collapse(each.write(stream, read, carry))
    assert written.is_meta and written.shape == (2, 5, WIDTH)
    assert all(parameter.is_meta for parameter in each.parameters())


@EVERY
def test_a_plain_start_reads_the_embedding_and_adds_updates_with_positive_weight(name: str) -> None:
    """At the start a sublayer sees a multiple of the embedding, and its output enters the result."""
    each, start = build(name, width=WIDTH, depth=4, index=0).double(), hidden()
    stream = each.expand(start)
    read, carry = each.read(stream)
    ratio = read / start
    torch.testing.assert_close(ratio, ratio.mean(-1, keepdim=True).expand_as(ratio))
    assert ratio.min() > 0
    update = fixed_sublayer(0, start)
    written = (each.write(stream, added, carry) for added in (update, torch.zeros_like(update)))
    after, without = map(each.collapse, written)
    gain = (after - without) / update
    assert gain.min() > 0


@EVERY
def test_a_place_outside_the_model_is_refused(name: str) -> None:
    for width, depth, index in ((0, 4, 0), (8, 4, 4), (8, 4, -1)):
        with pytest.raises(UsageError, match="expected"):
            build(name, width=width, depth=depth, index=index)

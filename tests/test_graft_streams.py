"""Widened streams: identical streams under identity maps are the stock model but for rounding."""

from __future__ import annotations

import copy

import model_factory as make
import pytest
import torch
from torch import Tensor, nn

from mhc_bench.model import graft, materialise, residual_connections
from mhc_bench.model.linking import link
from mhc_bench.model.recompute import recompute_layers
from mhc_bench.residual import ResidualConnection


class CopiedStreams(ResidualConnection):
    """n copies of the plain residual, mixed by the identity and read and collapsed by their mean."""

    def __init__(self, *, width: int, depth: int, index: int, streams: int = 4) -> None:
        super().__init__(width=width, depth=depth, index=index)
        self.streams = streams

    def expand(self, hidden: Tensor) -> Tensor:
        return hidden.unsqueeze(-2).repeat_interleave(self.streams, dim=-2)

    def read(self, stream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        identity = torch.eye(self.streams, dtype=stream.dtype)
        return stream.mean(-2), (identity,)

    def write(self, stream: Tensor, update: Tensor, carry: tuple[Tensor, ...]) -> Tensor:
        return carry[0] @ stream + update.unsqueeze(-2)

    def collapse(self, stream: Tensor) -> Tensor:
        return stream.mean(-2)


class CountingStreams(CopiedStreams):
    """Keeps a list of what was called, in order."""

    calls: list[tuple[str, int]] = []  # noqa: RUF012  # shared on purpose: it orders the calls of all sublayers

    def expand(self, hidden: Tensor) -> Tensor:
        self.calls.append(("expand", self.index))
        return super().expand(hidden)

    def read(self, stream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.calls.append(("read", self.index))
        return super().read(stream)

    def write(self, stream: Tensor, update: Tensor, carry: tuple[Tensor, ...]) -> Tensor:
        self.calls.append(("write", self.index))
        return super().write(stream, update, carry)

    def collapse(self, stream: Tensor) -> Tensor:
        self.calls.append(("collapse", self.index))
        return super().collapse(stream)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("family", make.FAMILIES)
def test_identical_streams_with_identity_maps_match_the_stock_model(family: str) -> None:
    ids = make.token_ids()
    model = graft(make.backbone(family), CopiedStreams, streams=3)
    materialise(model, 0, rule="fan_in", scale=1.0)
    expected = make.stock(family)(input_ids=ids).logits
    assert relative_difference(model.eval()(input_ids=ids).logits, expected) < 1e-5


@pytest.mark.parametrize("family", make.FAMILIES)
def test_hyper_connections_start_as_the_stock_model(family: str) -> None:
    # n copies summed at the end: the final norm hides the factor n but for its eps
    ids = make.token_ids()
    expected = make.stock(family)(input_ids=ids).logits
    assert relative_difference(make.grafted(family, "hc")(input_ids=ids).logits, expected) < 2e-5


@pytest.mark.parametrize("family", make.FAMILIES)
@pytest.mark.parametrize("variant", ["hc", "mhc"])
def test_generation_with_cache_equals_generation_without(family: str, variant: str) -> None:
    model = make.grafted(family, variant)
    ids = make.token_ids()
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(
        model.generate(ids, use_cache=True, **settings), model.generate(ids, use_cache=False, **settings)
    )


def test_the_model_expands_once_collapses_once_and_alternates_reads_and_writes() -> None:
    model = graft(make.backbone("llama"), CountingStreams)
    materialise(model, 0)
    CountingStreams.calls.clear()
    model(input_ids=make.token_ids())
    inner = [(verb, index) for index in range(6) for verb in ("read", "write")]
    assert CountingStreams.calls == [("expand", 0), *inner, ("collapse", 5)]


def test_sublayers_meet_in_write_read_within_a_layer_and_where_they_fuse_across() -> None:
    seen: list[tuple[int, int]] = []

    class Meeting(CopiedStreams):
        def write_read(self, stream, update, carry, next):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            seen.append((self.index, next.index))
            return super().write_read(stream, update, carry, next)

    class Fusing(Meeting):
        def fuses_with(self, next: ResidualConnection) -> bool:
            return True

    within = [(0, 1), (2, 3), (4, 5)]
    for kind, expected in ((Meeting, within), (Fusing, [(k, k + 1) for k in range(5)])):
        model = graft(make.backbone("llama"), kind)
        materialise(model, 0)
        model(input_ids=make.token_ids())
        assert seen == expected
        seen.clear()
    recompute_layers(model)
    model.train()(input_ids=make.token_ids(), use_cache=False)
    assert seen == within  # a layer that keeps its input alone is given a stream alone


@pytest.mark.parametrize("variant", ["hc", "mhc"])
def test_hidden_states_between_layers_are_streams(variant: str) -> None:
    model = make.grafted("llama", variant, streams=2)
    shown = model(input_ids=make.token_ids(), output_hidden_states=True).hidden_states
    assert [each.shape[2:] for each in shown] == [(32,), (2, 32), (2, 32), (32,)]


def test_layers_that_are_taken_out_moved_or_copied_are_linked_anew() -> None:
    """What a layer hands on is read by the connection of the layer that follows it now."""
    model, ids = make.grafted("llama", "mhc"), make.token_ids()
    copied = copy.deepcopy(model)
    first, middle, last = model.model.layers
    model(input_ids=ids, use_cache=False)
    assert [each.following for each in (first, last)] == [(middle.attention_residual,), ()]
    for each in (model, copied):
        each.model.layers = nn.ModuleList([each.model.layers[0], each.model.layers[2]])
        each.config.num_hidden_layers = 2
    model(input_ids=ids, use_cache=False)
    assert first.following == (last.attention_residual,)
    recompute_layers(copied.train())  # each by itself: nothing is handed on
    ours, theirs = (each(input_ids=ids, use_cache=False).logits for each in (model, copied))
    assert torch.equal(ours, theirs)
    last.to("meta")
    link(model.model)
    assert first.following == ()


def test_connections_are_listed_in_sublayer_order_with_the_width_and_depth_of_the_model() -> None:
    found = residual_connections(make.grafted("llama", "mhc", streams=2))
    names = [f"model.layers.{k}.{half}_residual" for k in range(3) for half in ("attention", "mlp")]
    assert list(found) == names
    assert [each.index for each in found.values()] == list(range(6))
    assert {(each.width, each.depth, each.streams) for each in found.values()} == {(32, 6, 2)}


def test_a_stock_model_has_no_connections() -> None:
    assert residual_connections(make.backbone("llama")) == {}


def test_a_padded_row_sees_what_it_sees_alone() -> None:
    model = make.grafted("llama", "mhc")
    ids = make.token_ids(rows=1, length=7)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0] * 4 + [1] * 7])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = model(input_ids=padded, attention_mask=mask, position_ids=positions).logits[:, 4:]
    assert relative_difference(found, model(input_ids=ids).logits) < 1e-5


def test_every_grafted_layer_reaches_every_shared_weight() -> None:
    model = make.grafted("llama", "mhc").train()
    model(input_ids=make.token_ids()).logits.square().mean().backward()
    idle = [
        n for n, p in model.named_parameters() if "residual" not in n and (p.grad is None or not p.grad.any())
    ]
    assert not idle
    assert isinstance(model, nn.Module)

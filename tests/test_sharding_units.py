"""FSDP2's units: of every variant one for a decoder layer, and one for its residual connections."""

from __future__ import annotations

from typing import Any

import model_factory as make
import pytest
import torch
from forked import on_ranks

from mhc_bench.model import decoder_layers, graft, materialise, residual_connections
from mhc_bench.residual import variant_names
from mhc_bench.training.sharding import shard

pytestmark = pytest.mark.ranks
Units = list[list[tuple[list[str], torch.dtype | None]]]
"""Of each decoder layer its units: names of the modules, the dtype that they compute in."""


def units_of(variant: str, mesh: Any) -> Units:
    from torch.distributed.fsdp import FSDPModule

    model = graft(make.backbone(), variant)
    shard(model, mesh, 1, "bf16")
    found: Units = []
    for _, layer in decoder_layers(model):
        units: dict[Any, list[str]] = {}
        for name, module in layer.named_modules():
            if isinstance(module, FSDPModule):
                units.setdefault(module._get_fsdp_state(), []).append(name)
        found.append([(names, state._mp_policy.param_dtype) for state, names in units.items()])
    return found


@pytest.fixture(scope="module")
def units() -> dict[str, Units]:
    def work(rank: int) -> dict[str, Units]:
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh

        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (1,))
        return {variant: units_of(variant, mesh) for variant in variant_names()}

    ((code, found),) = on_ranks(work, 1)
    assert code == 0
    return dict(found)


@pytest.mark.parametrize("variant", variant_names())
def test_a_layer_has_one_unit_and_its_residual_connections_share_one_in_fp32(
    units: dict[str, Units], variant: str
) -> None:
    layers = decoder_layers(graft(make.backbone(), variant))
    for (_, layer), found in zip(layers, units[variant], strict=True):
        owners = [name for name, each in residual_connections(layer).items() if list(each.parameters())]
        shared = [(sorted(owners), None)] if owners else []
        assert [(sorted(names), dtype) for names, dtype in found] == [([""], torch.bfloat16), *shared]


def arriving(variant: str, mesh: Any) -> dict[str, set[torch.dtype]]:
    """The dtypes of what decoder layers get from the ones before, by name, as FSDP2 leaves it."""
    from mhc_bench.model.layers import Handed

    model = graft(make.backbone(), variant)
    shard(model, mesh, 1, "bf16")
    materialise(model, 0)
    found: dict[str, set[torch.dtype]] = {}

    def look(layer: Any, given: tuple[Any, ...]) -> None:
        handed = given[0]
        if isinstance(handed, Handed):
            named = {"stream": handed.stream, "hidden": handed.hidden, **handed.carry._asdict()}
            for name, each in named.items():
                found.setdefault(name, set()).add(each.dtype)

    for _, layer in decoder_layers(model):
        layer.register_forward_pre_hook(look)
    model(input_ids=make.token_ids(), use_cache=False).logits.float().square().mean().backward()
    return found


@pytest.mark.parametrize("variant", ["hc", "mhc"])
def test_maps_that_a_layer_hands_on_stay_fp32_beside_streams_in_bf16(variant: str) -> None:
    def work(rank: int) -> dict[str, set[torch.dtype]]:
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh

        dist.init_process_group("gloo")
        return arriving(variant, init_device_mesh("cpu", (1,)))

    ((code, found),) = on_ranks(work, 1)
    assert code == 0
    streams = {key: {torch.bfloat16} for key in ("stream", "hidden", "through")}
    assert found == streams | {key: {torch.float32} for key in ("post", "res")}


def test_layers_that_somebody_sharded_with_their_connections_compute_the_same() -> None:
    """A layer then cannot read with the connection of the next one, whose parameters are not at hand."""

    def work(rank: int) -> tuple[bool, int]:
        import torch.distributed as dist
        from torch.distributed.fsdp import fully_shard

        dist.init_process_group("gloo")
        model, ids = make.grafted("llama", "mhc"), make.token_ids()
        expected = model(input_ids=ids, use_cache=False).logits
        linked = sum(len(layer.following) for layer in model.model.layers)
        for layer in (*model.model.layers, model):
            fully_shard(layer)
        return torch.equal(model(input_ids=ids, use_cache=False).logits, expected), linked

    assert on_ranks(work, 2) == [(0, (True, 2))] * 2

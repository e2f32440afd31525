"""Weights of a sharded model: the same bits on any number of ranks, none of which ever holds all of them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model_factory as make
import pytest
import torch
from forked import on_ranks
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from mhc_bench.config import HardwareConfig
from mhc_bench.model import (
    graft,
    initialisation,
    load_model,
    materialise,
    perturb,
    save_model,
    saving,
    shared_weight_digest,
    weight_digest,
)
from mhc_bench.training.fitting import lightning_quiet
from mhc_bench.training.sharding import shard, sharding_mesh

FAMILIES = ("gemma", "deepseek_v3")
"""Tied embeddings; separate ones and experts with a persistent buffer."""
WORLDS = {1: "fsdp", 2: "fsdp", 4: "hsdp"}
LARGEST_FILE = 40_000

pytestmark = pytest.mark.ranks


class Live:
    """Bytes of the storages that were added and live."""

    def __init__(self) -> None:
        self.now, self.peak = 0, 0

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, size: int) -> None:
        self.now -= size


@contextmanager
def watching(owner: Any, name: str, pick: Callable[[tuple[Any, ...], Any], Tensor]) -> Iterator[Live]:
    """Follow the tensor that `pick` finds in arguments and result of each call of `owner.name`."""
    live, original = Live(), getattr(owner, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        live.add(pick(args, result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, watched)
        yield live


@dataclass
class Seen:
    """What one rank found of one model, sizes in bytes."""

    digests: tuple[str, str]
    moved: str
    """Digest of the weights after they were perturbed; saved and measured before that."""
    whole: int
    largest: int
    local: int
    placements: set[tuple[Any, ...]]
    drawn: int
    """Most that lived at a time of tensors drawn whole, gathered for digests, gathered for saving."""
    digested: int
    saved: int


def start(family: str, mesh: Any, world: int, folder: Path) -> Seen:
    model = graft(make.backbone(family), "mhc")
    shard(model, mesh, world, "bf16")
    with watching(initialisation, "assign", lambda args, _: args[1]) as drawn:
        materialise(model, 0, rule="fan_in", scale=1.0)
    gathering = functools.partial(watching, DTensor, "full_tensor", lambda _, result: result)
    with gathering() as digested:
        digests = shared_weight_digest(model), weight_digest(model)
    with gathering() as saved:
        save_model(model, make.tokenizer(), folder / family)
    parameters = [each for each in model.parameters() if isinstance(each, DTensor)]
    sizes = [each.numel() * each.element_size() for each in parameters]
    perturb(model, 0, 1e-6)
    return Seen(
        digests,
        weight_digest(model),
        sum(sizes),
        max(sizes),
        sum(each.to_local().untyped_storage().nbytes() for each in parameters),
        {each.placements for each in parameters},
        drawn.peak,
        digested.peak,
        saved.peak,
    )


Found = dict[int, list[dict[str, Seen]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    """World size -> of each rank, family -> what it saw."""

    def work(rank: int, world: int) -> dict[str, Seen]:
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh

        saving.LARGEST_FILE = LARGEST_FILE
        dist.init_process_group("gloo")
        hybrid = WORLDS[world] == "hsdp"
        hardware = HardwareConfig(
            devices=2 if hybrid else world, nodes=world // 2 if hybrid else 1, sharding=WORLDS[world]
        )  # type: ignore[arg-type]
        mesh = sharding_mesh(init_device_mesh("cpu", (world,)), hardware)
        with lightning_quiet():
            return {family: start(family, mesh, world, folder / str(world)) for family in FAMILIES}

    ranks = {world: on_ranks(functools.partial(work, world=world), world) for world in WORLDS}
    assert all(code == 0 for each in ranks.values() for code, _ in each)
    return {world: [seen for _, seen in each] for world, each in ranks.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("world", WORLDS)
def test_sharded_ranks_start_from_the_bits_of_one_process(found: Found, world: int, family: str) -> None:
    model = make.grafted(family, "mhc")
    expected = shared_weight_digest(model), weight_digest(model)
    assert [seen[family].digests for seen in found[world]] == [expected] * world
    perturb(model, 0, 1e-6)
    assert [seen[family].moved for seen in found[world]] == [weight_digest(model)] * world


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("world", WORLDS)
def test_a_saved_model_loads_the_bits_of_the_ranks_from_several_files(
    found: Found, folder: Path, world: int, family: str
) -> None:
    place = folder / str(world) / family
    model, _ = load_model(place)
    assert weight_digest(model) == found[world][0][family].digests[1]
    assert not saving.find_damage(place, weight_digest(model))
    files = sorted(place.glob("*.safetensors"))
    assert len(files) > 1 and (place / "model.safetensors.index.json").exists()
    # what is in a file beside the tensors is its header
    largest = found[world][0][family].largest
    assert all(path.stat().st_size < max(LARGEST_FILE, largest) + 20_000 for path in files)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("world", [world for world in WORLDS if world > 1])
def test_no_rank_holds_more_than_its_shard_and_two_whole_tensors(
    found: Found, world: int, family: str
) -> None:
    for rank, seen in enumerate(ranks[family] for ranks in found[world]):
        assert seen.whole > 4 * max(2 * seen.largest, LARGEST_FILE)  # else the limits would say nothing
        assert seen.drawn <= 2 * seen.largest
        assert seen.digested <= 2 * seen.largest
        # rank 0 holds one file's tensors and the one being gathered
        assert seen.saved <= 2 * seen.largest + (LARGEST_FILE if rank == 0 else 0)
        # rows that two shards cannot share equally cost a little more than half
        assert seen.whole / 2 <= seen.local < 0.6 * seen.whole


@pytest.mark.parametrize("family", FAMILIES)
def test_on_two_nodes_each_parameter_is_a_shard_within_and_a_replica_across(
    found: Found, family: str
) -> None:
    assert {placements for seen in found[2] for placements in seen[family].placements} == {(Shard(0),)}
    hybrid = {placements for seen in found[4] for placements in seen[family].placements}
    assert hybrid == {(Replicate(), Shard(0))}


def test_storages_that_are_gone_no_longer_count() -> None:
    live = Live()
    tensor = torch.zeros(8)
    live.add(tensor)
    del tensor
    live.add(torch.zeros(4))
    assert (live.now, live.peak) == (0, 32)

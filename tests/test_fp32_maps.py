"""Under bf16 compute the maps stay fp32 on two ranks, forward and backward, eager and compiled."""

from __future__ import annotations

import functools
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import on_ranks
from test_fsdp_parity import sharded
from tiny_runs import write_corpus
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from mhc_bench.config import RunConfig
from mhc_bench.data import open_source
from mhc_bench.model import materialise, residual_connections
from mhc_bench.residual import ResidualConnection, build
from mhc_bench.training.fitting import lightning_quiet
from mhc_bench.training.layers import prepare_layers
from mhc_bench.training.module import build_model
from mhc_bench.training.sharding import shard

VARIANTS = ("hc", "mhc")
OPTIONS: dict[str, dict[str, Any]] = {"hc": {"streams": 3}, "mhc": {"streams": 3, "sinkhorn_iterations": 2}}
FP32 = 2e-5
"""Relative to the largest entry; mere rounding to bf16 is above 1e-3 (asserted)."""

pytestmark = pytest.mark.ranks


@dataclass
class Seen:
    """What one rank met in a training pass."""

    dtypes: dict[str, set[torch.dtype]]
    gradients: dict[str, Tensor]
    """Of the connections' own parameters, whole."""
    maps: dict[str, Tensor] = field(default_factory=dict)
    """Connection and map -> the map of this rank's stream."""
    map_gradients: dict[str, Tensor] = field(default_factory=dict)
    """Own parameter -> the gradient of a weighted sum of all maps, averaged over the ranks."""
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """Own parameters, whole."""


def rounded(corpus: Path, variant: str, **changes: Any) -> RunConfig:
    config = sharded(corpus, variant, 2, training__precision="bf16", **changes)
    config.variant.options = dict(OPTIONS[variant])
    return config


def sharded_model(config: RunConfig) -> PreTrainedModel:
    """As the training makes it, with the connections' parameters moved away from their symmetric start."""
    source = open_source(config.data)
    model = build_model(config, source)
    prepare_layers(model, config.hardware)
    shard(model, init_device_mesh("cpu", (2,)), 2, "bf16")
    materialise(model, 0, rule="fan_in", scale=0.5)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_residual." in name:
                assert isinstance(parameter, DTensor)
                noise = 0.3 * torch.randn(parameter.shape, generator=generator)
                parameter.add_(distribute_tensor(noise, parameter.device_mesh, parameter.placements))
    return model.train()


def training_pass(model: PreTrainedModel) -> Seen:
    """One forward and backward pass over rows that differ between the ranks."""
    seen: dict[str, set[torch.dtype]] = {"projection": set()}
    projection = model.model.layers[0].self_attn.q_proj
    projection.register_forward_hook(lambda _, args, output: seen["projection"].add(output.dtype))
    ids = torch.randint(0, 200, (2, 16), generator=torch.Generator().manual_seed(dist.get_rank()))
    model(input_ids=ids, use_cache=False).logits.float().square().mean().backward()
    own = {name: each for name, each in model.named_parameters() if "_residual." in name}
    seen["own parameters"] = {each.dtype for each in own.values()}
    seen["their gradients"] = {each.grad.dtype for each in own.values() if each.grad is not None}
    return Seen(seen, gradients_of(own))


def gradients_of(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: each.grad.full_tensor() for name, each in parameters.items() if isinstance(each.grad, DTensor)
    }


def stream_of(rank: int, dtype: torch.dtype) -> Tensor:
    """[2, 16, n, C]: numbers of bf16, in whatever dtype."""
    drawn = torch.randn(2, 16, 3, 16, generator=torch.Generator().manual_seed(100 + rank))
    return drawn.to(torch.bfloat16).to(dtype)


def weighted_maps(connection: ResidualConnection, stream: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A number that depends on every entry of every map, in the maps' own dtype, and the maps."""
    found = connection.maps(stream)
    assert found is not None
    total = sum((each * torch.linspace(-1, 2, each.numel()).view(each.shape)).sum() for each in found)
    assert isinstance(total, Tensor)
    return total, {name: each.detach() for name, each in found._asdict().items()}


def look_inside(model: PreTrainedModel, seen: Seen) -> None:
    """The maps of a bf16 stream and what flows back through them, by way of FSDP's fp32 units."""
    for name, connection in residual_connections(model).items():
        connection.zero_grad()
        total, maps = weighted_maps(connection, stream_of(dist.get_rank(), torch.bfloat16))
        seen.dtypes.setdefault("maps", set()).update(each.dtype for each in maps.values())
        total.backward()
        own = {f"{name}.{key}": each for key, each in connection.named_parameters()}
        seen.map_gradients |= gradients_of(own)
        seen.parameters |= {key: each.full_tensor() for key, each in own.items() if isinstance(each, DTensor)}
        seen.maps |= {f"{name}.{key}": each for key, each in maps.items()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Seen]]:
    """What each of two ranks met in every variant, eager and (`compiled-...`) compiled."""
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    corpus = write_corpus(tmp_path_factory.getbasetemp() / "corpus")

    def work(rank: int) -> dict[str, Seen]:
        dist.init_process_group("gloo")
        # up to torch's own code generator, which would take minutes and keeps the dtypes that it is given
        traced = functools.partialmethod(nn.Module.compile, backend="aot_eager")
        nn.Module.compile = traced  # type: ignore[assignment]
        with lightning_quiet():
            warnings.simplefilter("ignore", DeprecationWarning)  # dynamo's own use of autograd functions
            found = {variant: seen_in(rounded(corpus, variant)) for variant in VARIANTS}
            for variant in VARIANTS:
                found[f"compiled-{variant}"] = seen_in(rounded(corpus, variant, hardware__compile=True))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert graphs >= 2 * len(VARIANTS)  # the first and the last layer
        return found

    ended = on_ranks(work)
    assert [code for code, _ in ended] == [0, 0]
    return [found for _, found in ended]


def seen_in(config: RunConfig) -> Seen:
    model = sharded_model(config)
    seen = training_pass(model)
    look_inside(model, seen)
    return seen


def oracle(seen: Seen, variant: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Maps of rank 0 and gradients in float64, from the same bf16 streams on one rank; parameters, maps and
    gradients rounded to `dtype`, and nothing between them: the least that computing in it would do."""
    maps, gradients = dict[str, Tensor](), dict[str, Tensor]()
    for index, name in enumerate(dict.fromkeys(key.rsplit(".", 1)[0] for key in seen.parameters)):
        connection = build(variant, width=16, depth=4, index=index, **OPTIONS[variant]).double()
        with torch.no_grad():
            for key, parameter in connection.named_parameters():
                parameter.copy_(seen.parameters[f"{name}.{key}"].to(dtype))
        for rank in (1, 0):
            total, found = weighted_maps(connection, stream_of(rank, torch.float64))
            (total / 2).backward()
        maps |= {f"{name}.{key}": each.to(dtype) for key, each in found.items()}
        for key, parameter in connection.named_parameters():
            assert parameter.grad is not None
            gradients[f"{name}.{key}"] = parameter.grad.to(dtype)
    return maps, gradients


def error(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """The largest difference of any entry relative to its tensor's largest."""
    assert found.keys() == exact.keys()
    return max(
        float((found[name].double() - exact[name].double()).abs().max() / exact[name].double().abs().max())
        for name in exact
    )


@pytest.mark.parametrize("name", [*VARIANTS, *(f"compiled-{variant}" for variant in VARIANTS)])
def test_maps_and_their_gradients_are_fp32_while_the_model_computes_in_bf16(
    ranks: list[dict[str, Seen]], name: str
) -> None:
    first, second = (seen[name] for seen in ranks)
    for seen in (first, second):
        assert seen.dtypes == {
            "projection": {torch.bfloat16},
            "own parameters": {torch.float32},
            "their gradients": {torch.float32},
            "maps": {torch.float32},
        }
    variant = name.removeprefix("compiled-")
    exact = oracle(first, variant, torch.float64)
    coarse = oracle(first, variant, torch.bfloat16)
    for found, true, rounded_off in zip((first.maps, first.map_gradients), exact, coarse, strict=True):
        assert error(found, true) < FP32 < 1e-3 < error(rounded_off, true)
    # FSDP2 gave both ranks the gradient over both ranks' streams
    assert all(map(torch.equal, first.map_gradients.values(), second.map_gradients.values()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_layers_compute_the_gradients_of_eager_ones(
    ranks: list[dict[str, Seen]], variant: str
) -> None:
    """So what holds inside the maps of eager layers holds in compiled ones: a rounding to bf16 would show."""
    eager, compiled = (ranks[0][name].gradients for name in (variant, f"compiled-{variant}"))
    changed = {name: each for name, each in eager.items() if each.abs().max() > 0}
    assert len(changed) > len(eager) / 2
    assert error({name: compiled[name] for name in changed}, changed) < FP32

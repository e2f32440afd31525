"""Under bf16 compute the maps stay fp32 on two ranks, forward and backward, eager and compiled."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
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
OPTIONS: dict[str, dict[str, Any]] = {"hc": {"streams": 3}, "mhc": {"streams": 3, "sinkhorn_iterations": 1}}
BF16_UNIT = 2**-9
"""The largest relative error of rounding to bf16."""
FP32_UNIT = 2**-24

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
    config.model.backbone["num_hidden_layers"] = 1
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


def weighted_maps(
    connection: ResidualConnection, stream: Tensor, rounding: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """A sum over all maps, weighted so that every entry counts, and the maps.

    `rounding` disturbs what flows back to the maps as arithmetic of that precision would.
    """
    found = connection.maps(stream)
    assert found is not None
    drawn, total = torch.Generator().manual_seed(8), stream.new_zeros((), dtype=found.pre.dtype)
    for each in found:
        weights = torch.linspace(-1, 2, each.numel()).view(each.shape)
        noise = 2 * torch.rand(each.shape, generator=drawn, dtype=torch.float64) - 1
        total = total + (each * (weights * (1 + rounding * noise)).to(each.dtype)).sum()
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


Met = Callable[[str], list[Seen]]


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> Met:
    """What each of two ranks meets in a variant, eager or (`compiled-...`) compiled."""
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    corpus = write_corpus(tmp_path_factory.getbasetemp() / "corpus")

    @functools.cache
    def on_two_ranks(name: str) -> list[Seen]:
        variant = name.removeprefix("compiled-")
        config = rounded(corpus, variant, hardware__compile=name != variant)

        def work(rank: int) -> Seen:
            dist.init_process_group("gloo")
            torch._dynamo.utils.counters.clear()  # those of the process that was forked
            # up to torch's own code generator, which would take minutes and keeps the dtypes that it is given
            traced = functools.partialmethod(nn.Module.compile, backend="aot_eager")
            nn.Module.compile = traced  # type: ignore[assignment]
            with lightning_quiet():
                warnings.simplefilter("ignore", DeprecationWarning)  # dynamo's own use of autograd functions
                seen = seen_in(config)
            assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0) == config.hardware.compile
            return seen

        ended = on_ranks(work)
        assert [code for code, _ in ended] == [0, 0]
        return [found for _, found in ended]

    return on_two_ranks


def seen_in(config: RunConfig) -> Seen:
    model = sharded_model(config)
    seen = training_pass(model)
    look_inside(model, seen)
    return seen


def oracle(seen: Seen, variant: str, rounding: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Maps of rank 0, and gradients averaged over the ranks: in float64, from the same bf16 streams."""
    maps, gradients = dict[str, Tensor](), dict[str, Tensor]()
    for index, name in enumerate(dict.fromkeys(key.rsplit(".", 1)[0] for key in seen.parameters)):
        connection = build(variant, width=16, depth=2, index=index, **OPTIONS[variant]).double()
        with torch.no_grad():
            for key, parameter in connection.named_parameters():
                parameter.copy_(seen.parameters[f"{name}.{key}"])
        for rank in (1, 0):
            total, found = weighted_maps(connection, stream_of(rank, torch.float64), rounding)
            (total / 2).backward()
        maps |= {f"{name}.{key}": each for key, each in found.items()}
        for key, parameter in connection.named_parameters():
            assert parameter.grad is not None
            gradients[f"{name}.{key}"] = parameter.grad
    return maps, gradients


def error(found: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest entry."""
    return float((found.double() - exact.double()).abs().max() / exact.double().abs().max())


LONG = {"baseline", "hc"}
"""Compiled, too, but not by default: mHC's maps are the ones with most in them."""


def marks(variant: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.long] if variant in LONG else []


COMPILED = [pytest.param(f"compiled-{variant}", marks=marks(variant)) for variant in VARIANTS]


@pytest.mark.parametrize("name", [*VARIANTS, *COMPILED])
def test_maps_and_their_gradients_are_fp32_while_the_model_computes_in_bf16(met: Met, name: str) -> None:
    first, second = met(name)
    for seen in (first, second):
        assert seen.dtypes == {
            "projection": {torch.bfloat16},
            "own parameters": {torch.float32},
            "their gradients": {torch.float32},
            "maps": {torch.float32},
        }
    variant = name.removeprefix("compiled-")
    maps, gradients = oracle(first, variant)
    _, coarse = oracle(first, variant, rounding=BF16_UNIT)
    assert first.maps.keys() == maps.keys() and first.map_gradients.keys() == gradients.keys()
    for key, exact in maps.items():
        assert error(first.maps[key], exact) < 64 * FP32_UNIT < error(exact.bfloat16(), exact), key
    for key, exact in gradients.items():
        # sums over tokens cancel: how far differs from parameter to parameter, for fp32 and bf16 alike
        assert error(first.map_gradients[key], exact) < error(coarse[key], exact) / 20, key
    # FSDP2 gave both ranks the gradient over both ranks' streams
    assert all(map(torch.equal, first.map_gradients.values(), second.map_gradients.values()))


@pytest.mark.parametrize("variant", [pytest.param(each, marks=marks(each)) for each in VARIANTS])
def test_compiled_layers_compute_the_gradients_of_eager_ones(met: Met, variant: str) -> None:
    """So what holds inside the maps of eager layers holds in compiled ones: a rounding to bf16 would show."""
    eager, compiled = (met(name)[0].gradients for name in (variant, f"compiled-{variant}"))
    assert eager.keys() == compiled.keys()
    largest = {name: float(each.abs().max()) for name, each in eager.items()}
    moving = [name for name, each in largest.items() if each > 1e-5 * max(largest.values())]
    assert len(moving) > len(eager) / 2  # the others are zero by construction, but for rounding
    for name in moving:
        assert error(compiled[name], eager[name]) < BF16_UNIT / 20, name

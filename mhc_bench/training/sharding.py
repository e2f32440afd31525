"""FSDP2 for a grafted model: per decoder layer a unit, and one for its residual connections; root last."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from mhc_bench.config.schema import HardwareConfig, RunConfig
from mhc_bench.model import decoder_layers, residual_connections
from mhc_bench.training.checks import world_size
from mhc_bench.training.state import PortableState

ENTRY_POINTS = ("expand", "read", "write", "write_read", "read_written", "collapse", "maps")
"""Methods of a residual connection that may use its parameters: FSDP2 gathers them on `forward` alone."""


class PlainStrategy(PortableState, SingleDeviceStrategy):
    """One device without FSDP2."""


class ShardedStrategy(PortableState, ModelParallelStrategy):
    """FSDP2, on whatever mesh the module shards itself over."""


def is_sharded(config: RunConfig) -> bool:
    """Whether a run's model goes through FSDP2.

    bf16 does so on a single device too: what is rounded where belongs to the protocol, so all hardware must
    get it from the same mixed-precision units.
    """
    return config.hardware.sharding != "none" or config.training.precision == "bf16"


def make_strategy(config: RunConfig) -> PortableState:
    """The Lightning strategy of a run."""
    strategy: PortableState
    patience = timedelta(seconds=config.hardware.collective_timeout)
    if is_sharded(config):
        # both sizes are named: the defaults would train unsynchronised replicas
        strategy = ShardedStrategy(
            data_parallel_size=world_size(config), tensor_parallel_size=1, timeout=patience
        )
    else:
        device = "cuda:0" if config.hardware.accelerator == "gpu" else "cpu"
        strategy = PlainStrategy(device=torch.device(device))
    strategy.patience = patience
    if config.logging.checkpoint_async:
        strategy.background = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    return strategy


def sharding_mesh(whole: DeviceMesh, hardware: HardwareConfig) -> DeviceMesh:
    """The mesh to shard over: `whole` [ranks], or, for hsdp, [nodes, devices of a node]; collective."""
    if hardware.sharding != "hsdp":
        return whole
    # Lightning's mesh is data x tensor parallel; ranks are numbered node by node
    names = ("replicate", "shard")
    return init_device_mesh(whole.device_type, (hardware.nodes, hardware.devices), mesh_dim_names=names)


def limit_waiting(meshes: Iterable[DeviceMesh], hardware: HardwareConfig) -> None:
    """Give the groups of some meshes the run's time-out: torch makes them with its own."""
    for mesh in meshes:
        for group in mesh.get_all_groups():
            _set_pg_timeout(timedelta(seconds=hardware.collective_timeout), group)


def sharding_plan(config: RunConfig) -> dict[str, str]:
    """What is split and rounded where, the same for all variants; empty without FSDP2."""
    if not is_sharded(config):
        return {}
    hardware, precision = config.hardware, config.training.precision
    hybrid = f"replicate {hardware.nodes} x shard {hardware.devices}"
    return {
        "mesh": hybrid if hardware.sharding == "hsdp" else f"shard {world_size(config)}",
        "decoder layers": f"a unit each, {precision}",
        "residual connections": "a unit for each decoder layer, fp32",
        "root": f"one unit, {precision}",
        "weights, gradients and their reduction": "fp32",
    }


def shard(model: PreTrainedModel, mesh: DeviceMesh, world: int, precision: Literal["fp32", "bf16"]) -> None:
    """Apply FSDP2 to a grafted model that is still on the meta device, in place."""
    if mesh.size() != world:
        raise AssertionError(f"the data-parallel mesh spans {mesh.size()} of {world} ranks")
    compute = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None, reduce_dtype=torch.float32
    )
    # what comes in has the right dtype: hidden states that of the embedding, maps fp32
    inner = dataclasses.replace(compute, cast_forward_inputs=False)
    for _, layer in decoder_layers(model):
        _shard_connections(layer, mesh)
        fully_shard(layer, mesh=mesh, mp_policy=inner)
    fully_shard(model, mesh=mesh, mp_policy=compute)


def _shard_connections(layer: nn.Module, mesh: DeviceMesh) -> None:
    """One fp32 unit for all residual connections of a decoder layer that have parameters."""
    connections = _with_parameters(layer)
    if not connections:
        return
    # no param_dtype: maps stay fp32. Gathered once for all reads and writes of the layer: they are small
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(connections, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for connection in connections:
        for name in ENTRY_POINTS:
            if hasattr(connection, name):
                register_fsdp_forward_method(connection, name)


def _with_parameters(module: nn.Module) -> list[Any]:
    return [each for each in residual_connections(module).values() if any(True for _ in each.parameters())]


def join_replicas(model: nn.Module, join: bool) -> None:
    """Whether the next backward pass adds gradients up over replicas (hsdp), or leaves that to a later one.

    The residual connections' are always added up: FSDP2 keeps what it has put off as one sum for a unit, and
    a unit shared by connections reduces those of each by themselves, as their gradients arrive.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(join)
        for connection in _with_parameters(model):
            connection.set_requires_all_reduce(True)


def global_gradient_norm(model: PreTrainedModel) -> torch.Tensor:
    """The 2-norm over all gradients of all ranks, a scalar; collective when sharded."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm

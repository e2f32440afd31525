"""FSDP2 for a grafted model: a unit per decoder layer, fp32 units for its residual connections, root last."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from transformers import PreTrainedModel

from mhc_bench.config.schema import RunConfig
from mhc_bench.model import decoder_layers, residual_connections
from mhc_bench.training.checks import world_size

ENTRY_POINTS = ("expand", "read", "write", "write_read", "read_written", "collapse", "maps")
"""Methods of a residual connection that may use its parameters: FSDP2 gathers them on `forward` alone."""


def is_sharded(config: RunConfig) -> bool:
    """Whether a run's model goes through FSDP2.

    bf16 does so on a single device too: what is rounded where belongs to the protocol, so all hardware must
    get it from the same mixed-precision units.
    """
    return config.hardware.sharding == "fsdp" or config.training.precision == "bf16"


def make_strategy(config: RunConfig) -> Strategy:
    """The Lightning strategy of a run."""
    if is_sharded(config):
        # both sizes are named: the defaults would train unsynchronised replicas
        return ModelParallelStrategy(data_parallel_size=world_size(config), tensor_parallel_size=1)
    device = "cuda:0" if config.hardware.accelerator == "gpu" else "cpu"
    return SingleDeviceStrategy(device=torch.device(device))


def shard(model: PreTrainedModel, mesh: DeviceMesh, world: int, precision: Literal["fp32", "bf16"]) -> None:
    """Apply FSDP2 to a grafted model that is still on the meta device, in place."""
    if mesh.size() != world:
        raise AssertionError(f"the data-parallel mesh spans {mesh.size()} of {world} ranks")
    compute = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None, reduce_dtype=torch.float32
    )
    for connection in residual_connections(model).values():
        if any(True for _ in connection.parameters()):
            # no param_dtype: maps stay fp32. Gathered once for read and write: they are small
            policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
            fully_shard(connection, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
            for name in ENTRY_POINTS:
                if hasattr(connection, name):
                    register_fsdp_forward_method(connection, name)
    for _, layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=compute)
    fully_shard(model, mesh=mesh, mp_policy=compute)


def global_gradient_norm(model: PreTrainedModel) -> torch.Tensor:
    """The 2-norm over all gradients of all ranks, a scalar; collective when sharded."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm

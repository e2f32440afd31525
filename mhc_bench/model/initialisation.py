"""Start weights from (seed, qualified name) alone: the same bits for every variant on any devices."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from mhc_bench.errors import choose
from mhc_bench.model.families import decoder_layers, family_of
from mhc_bench.model.layers import parameter_owners

Rule = Literal["normal", "fan_in"]
OUTPUT_PROJECTIONS = ("o_proj", "down_proj")
"""The last matrix of a sublayer, in every supported family and in each expert."""


@torch.no_grad()
def materialise(
    model: PreTrainedModel,
    seed: int,
    *,
    rule: Rule = "normal",
    scale: float = 0.02,
    depth_scaled: bool = True,
    device: torch.device | str = "cpu",
) -> None:
    """Fill every parameter of a stock or grafted model, from the meta device or in place, sharded or not.

    Matrices, embeddings included, are normal with std `scale` (`normal`) or `scale` / sqrt(last dimension)
    (`fan_in`: the fan-in of a projection, the width of an embedding); with `depth_scaled` the last projection
    of each sublayer is divided by sqrt(number of sublayers). Norms start neutral, biases at 0, a connection's
    own parameters where the connection says. Each tensor is drawn whole on every rank, in float64 before
    rounding so that the last bits of a machine's mathematics do not show, and a rank keeps its shard.

    Args:
        model: its parameters may be DTensors.
        seed: of the run; each parameter has its own stream, keyed by a hash of (seed, name).
        rule: of the matrices' standard deviation, as above.
        scale: as above.
        depth_scaled: as above.
        device: where parameters that are on the meta device or elsewhere shall be.

    Raises:
        UsageError: an unknown rule or an unsupported model.
    """
    choose("initialisation rule", rule, ("normal", "fan_in"))
    settle(model, torch.device(device))
    owners = parameter_owners(model)
    depth = 2 * len(decoder_layers(model)) if depth_scaled else 1
    norm_start = family_of(model).norm_start
    for name, parameter in model.named_parameters():
        if name in owners:
            connection, own_name = owners[name]
            value = connection.initial_value(own_name, torch_generator(seed, name))
        elif parameter.ndim >= 2:
            value = normal(
                seed, name, parameter.shape, standard_deviation(name, parameter.shape, rule, scale, depth)
            )
        else:
            value = torch.full(parameter.shape, 0.0 if name.endswith("bias") else norm_start)
        assign(parameter, value)


@torch.no_grad()
def perturb(model: PreTrainedModel, seed: int, relative: float) -> None:
    """Multiply every entry of every parameter by 1 + `relative` or 1 - `relative`, in place, sharded or not.

    Which of the two depends on (seed, parameter name) alone, and not on how the parameter itself was drawn.
    """
    for name, parameter in model.named_parameters():
        signs = normal(seed, f"perturbation of {name}", parameter.shape, 1.0).sign()
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        local.mul_(own_share(parameter, 1 + relative * signs))


def settle(model: PreTrainedModel, device: torch.device) -> None:
    """Bring all tensors of `model` to `device`. From meta they get memory, ties and buffers anew."""
    if not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        nn.Module.to(model, device)
        return
    model.to_empty(device=device)
    model.tie_weights()
    with torch.random.fork_rng(devices=[]):
        for module in model.modules():
            # the family's own rule for a module's buffers; the parameters that it also fills are filled again
            if any(True for _ in module.buffers(recurse=False)):
                model._init_weights(module)


def standard_deviation(name: str, shape: torch.Size, rule: Rule, scale: float, depth: int) -> float:
    """The std of a matrix of that name and shape in a model of `depth` sublayers (1: not depth-scaled)."""
    std = scale if rule == "normal" else scale / math.sqrt(shape[-1])
    is_output = name.removesuffix(".weight").endswith(OUTPUT_PROJECTIONS)
    return std / math.sqrt(depth) if is_output else std


def normal(seed: int, name: str, shape: torch.Size, std: float) -> Tensor:
    """fp32 normal values on the CPU, a function of the arguments alone."""
    generator = np.random.Generator(np.random.PCG64(name_key(seed, name)))
    values = generator.standard_normal(shape.numel()) * std
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def torch_generator(seed: int, name: str) -> torch.Generator:
    """The generator of a residual connection's parameter."""
    return torch.Generator().manual_seed(name_key(seed, name))


def name_key(seed: int, name: str) -> int:
    """64 bits of a cryptographic hash: names never share a stream, as they would by a short checksum."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "little")


def assign(parameter: nn.Parameter, value: Tensor) -> None:
    """Copy a full tensor into a parameter, or this rank's shard of it; no communication."""
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    local.copy_(own_share(parameter, value))


def own_share(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """What this rank keeps of a full tensor that is laid out as `parameter`; no communication."""
    placed = value.to(parameter.device, parameter.dtype)
    if not isinstance(parameter, DTensor):
        return placed
    shard = distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return shard.to_local()

"""What one device holds and moves in a training step under FSDP2, plain or hybrid, before a step is made.

The units are those of `mhc_bench.training.sharding`: every decoder layer, gathered for its forward and again
for its backward pass; the residual connections, in fp32 and gathered once; and the root with embedding and
head, gathered once. Weights, gradients and both moments of AdamW are fp32 shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mhc_bench.config import RunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mhc_bench.model.footprint import LayerFootprint
    from mhc_bench.suite.preflight import Counts

FP32 = 4
LOSS_COPIES = 3
"""Logits in fp32 at the start of the backward pass: log-probabilities and two gradients."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device. The two peaks differ in what is kept from the forward to the backward pass."""

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    """Most at one time of whole layers, root, residual connections and gradients on their way."""
    logits: int
    activations: int
    """Kept for the backward pass, nothing recomputed: what training does."""
    activations_checkpointed: int
    """Kept if every layer were recomputed from its input stream; and one layer's, while it is."""
    peak: int
    peak_checkpointed: int


@dataclass(frozen=True)
class Communication:
    """Bytes that one device receives in an optimizer step."""

    all_gather: int
    reduce_scatter: int
    all_reduce: int
    """hsdp: of its shard of the gradients over the nodes, once per step, as a ring does it."""
    between_nodes: int
    """Of all these, what comes from devices of other nodes. fsdp: as if each device fetched it by itself,
    where one copy for each node would do."""

    @property
    def total(self) -> int:
        """Over all networks."""
        return self.all_gather + self.reduce_scatter + self.all_reduce


@dataclass(frozen=True)
class Units:
    """Numbers in FSDP2's units, each parameter filled up to rows that all ranks share equally.

    FSDP2 splits by rows: 72 experts over 64 ranks give two to each of the first 36, as if there were 128.
    """

    layers: tuple[int, ...]
    root: int
    residual: int
    head: int
    """Of the output head, as it is."""

    @classmethod
    def of(cls, model: PreTrainedModel, shards: int) -> Units:
        """The units of a grafted model over that many ranks."""
        from mhc_bench.model import decoder_layers
        from mhc_bench.model.counting import output_head
        from mhc_bench.model.layers import parameter_owners

        owners = parameter_owners(model)
        sizes = {
            name: -(-len(each) // shards) * shards * (each.numel() // len(each))
            for name, each in model.named_parameters()
        }
        residual = sum(sizes.pop(name) for name in owners)
        layers = [
            sum(sizes.pop(f"{prefix}.{name}", 0) for name, _ in layer.named_parameters())
            for prefix, layer in decoder_layers(model)
        ]
        return cls(tuple(layers), sum(sizes.values()), residual, output_head(model).numel())

    @property
    def total(self) -> int:
        """Of all of them; divided by the ranks, what the fullest rank holds."""
        return sum(self.layers) + self.root + self.residual


@dataclass(frozen=True)
class Step:
    """The sizes that memory and communication follow from."""

    sharded: bool
    shards: int
    """Devices that share one copy of the model: all, or with hsdp those of a node."""
    replicas: int
    """Copies of the model."""
    parts: int
    """Forward passes of a device in an optimizer step."""
    rows: int
    """Rows of one of them."""
    compute_bytes: int
    """Of a gathered parameter."""

    @classmethod
    def of(cls, run: RunConfig) -> Step:
        """The step of a run."""
        hardware, bf16 = run.hardware, run.training.precision == "bf16"
        world = hardware.devices * hardware.nodes
        replicas = hardware.nodes if hardware.sharding == "hsdp" else 1
        share = run.training.batch_tokens // run.training.sequence_length // world
        rows = hardware.rows_per_device or share
        return cls(
            # bf16 goes through FSDP2 on one device too
            sharded=hardware.sharding != "none" or bf16,
            shards=world // replicas,
            replicas=replicas,
            parts=share // rows,
            rows=rows,
            compute_bytes=2 if bf16 else FP32,
        )


def device_memory(
    run: RunConfig, units: Units, layers: Sequence[LayerFootprint], logits: int
) -> DeviceMemory:
    """The memory of the fullest device.

    Args:
        units: of the run's model over its shards.
        layers: of `layer_footprints` for the rows of one forward pass.
        logits: numbers in the logits of one forward pass.
    """
    step = Step.of(run)
    shard = FP32 * units.total // step.shards
    entering, kept = [layer.entering for layer in layers], [layer.kept for layer in layers]
    peak, gathered = _peak(step, units, layers, logits, kept)
    return DeviceMemory(
        parameters=shard,
        gradients=shard,
        optimizer=2 * shard,
        gathered=gathered,
        logits=LOSS_COPIES * FP32 * logits,
        activations=entering[0] + sum(kept),
        activations_checkpointed=sum(entering) + max(kept),
        peak=peak,
        peak_checkpointed=_peak(step, units, layers, logits, entering)[0],
    )


def measure_run(run: RunConfig, counts: Counts) -> tuple[DeviceMemory, Communication]:
    """Memory and communication of a run's step, from its layers on the meta device."""
    import torch

    from mhc_bench.model.footprint import layer_footprints
    from mhc_bench.training.build import build_for

    step, length = Step.of(run), run.training.sequence_length
    precision = torch.bfloat16 if run.training.precision == "bf16" else torch.float32
    model = build_for(run, counts.vocabulary)
    units = Units.of(model, step.shards)
    layers = layer_footprints(model, step.rows, length, precision)
    memory = device_memory(run, units, layers, step.rows * length * counts.vocabulary.size)
    return memory, communication(run, units)


def _peak(
    step: Step, units: Units, layers: Sequence[LayerFootprint], logits: int, kept: list[int]
) -> tuple[int, int]:
    """The largest of the moments of a step, and what was gathered then.

    `kept` is what stays of each layer until its backward pass, when all of it is there again.
    """
    whole, q = FP32 * units.total // step.shards, step.compute_bytes if step.sharded else 0
    earlier = whole if step.parts > 1 else 0
    held = q * units.root + (FP32 * units.residual if step.sharded else 0)
    embedded = layers[0].entering
    at_loss = 3 * whole + earlier + held + embedded + sum(kept) + LOSS_COPIES * FP32 * logits
    moments = [(4 * whole, 0), (at_loss, held)]
    for place, layer in reversed(list(enumerate(layers))):
        own = units.layers[place]
        # the layer before is gathered while this one works; the first one's own buffer is gone by then
        arriving = units.layers[place - 1] if place else 0
        reducing = FP32 * sum(units.layers[place + 1 : place + 2]) if step.sharded else 0
        again = embedded + sum(kept[:place]) + layer.kept + step.compute_bytes * units.head
        gradients = earlier or FP32 * sum(units.layers[place + 1 :]) // step.shards
        for buffer, working in ((arriving, layer.backward), (own, 0)):
            moving = held + q * (own + buffer) + reducing
            moments.append((3 * whole + gradients + moving + again + working, moving))
    return max(moments)


def communication(run: RunConfig, units: Units) -> Communication:
    """What one device receives in a step: its share of gathered parameters, reduced gradients in fp32.

    Every forward pass of a step gathers, and its backward pass reduces within the shards; replicas join once.
    """
    step = Step.of(run)
    if not step.sharded:
        return Communication(0, 0, 0, 0)
    gathered = step.compute_bytes * (2 * sum(units.layers) + units.root) + FP32 * units.residual
    passing = step.parts * (gathered + FP32 * units.total)
    far = step.shards - min(step.shards, run.hardware.devices)
    all_reduce = 2 * FP32 * units.total * (step.replicas - 1) // (step.shards * step.replicas)
    return Communication(
        all_gather=step.parts * gathered * (step.shards - 1) // step.shards,
        reduce_scatter=step.parts * FP32 * units.total * (step.shards - 1) // step.shards,
        all_reduce=all_reduce,
        between_nodes=passing * far // step.shards + all_reduce,
    )

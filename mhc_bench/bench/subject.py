"""One variant's training step, ready to be timed: our model, loss and optimizer without Lightning."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mhc_bench.config import RunConfig
from mhc_bench.data import TokenSource, open_source
from mhc_bench.errors import UsageError
from mhc_bench.training.fitting import lightning_quiet
from mhc_bench.training.module import ResidualTraining, build_model, prepared_model
from mhc_bench.training.operations import choice_for, with_operations
from mhc_bench.training.sharding import is_sharded


class StepSubject:
    """A run's model and optimizer, and batches that lie in memory before any step is timed.

    The model is the one that training makes, so bf16 goes through FSDP2's units on a mesh of one: that is
    what a run on one device does, and autocast would round elsewhere and cast at other times. Such a subject
    has to be made and used inside `one_rank`.
    """

    def __init__(self, config: RunConfig, source: TokenSource, batches: int) -> None:
        self.choice = choice_for(config, build_model(config, source))
        """The operations that it computes with, and why these."""
        config = with_operations(config, self.choice.operations)
        self.config = config
        self.name = config.variant_name
        self.device = bench_device(config)
        self.module = ResidualTraining(config, source)
        mesh = mesh_of_one(self.device) if is_sharded(config) else None
        self.module.model = prepared_model(config, source, self.device, mesh).train()
        made = self.module.configure_optimizers()
        self.optimizer, self.schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        self.batches = [batch_of(source, config, step).to(self.device) for step in range(batches)]
        self.steps = 0
        self.itemsize = 2 if config.training.precision == "bf16" else 4
        """Bytes of one element of the stream."""

    def forward(self, rows: Tensor) -> Tensor:
        """The loss of `rows`, ids [b, T + 1], as training computes it."""
        loss = self.module.training_step({"ids": rows, "digests": ()}, self.steps)
        self.module.losses.clear()
        return loss

    def parts(self) -> tuple[Tensor, ...]:
        """The rows of each forward pass of the current step."""
        batch = self.batches[self.steps % len(self.batches)]
        return torch.split(batch, self.config.hardware.rows_per_device or len(batch))

    def step(self) -> Tensor:
        """Forward, loss and backward of each part, clipping, AdamW, schedule; the loss, on the device."""
        parts, total = self.parts(), torch.zeros((), device=self.device)
        for rows in parts:
            loss = self.forward(rows) / len(parts)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.module.configure_gradient_clipping(self.optimizer)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return total


def bench_device(config: RunConfig) -> torch.device:
    """Where a configuration's steps are measured.

    Raises:
        UsageError: it asks for a GPU that is not there.
    """
    if config.hardware.accelerator != "gpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("hardware.accelerator 'gpu': no CUDA device here; give hardware=cpu")
    return torch.device("cuda", torch.cuda.current_device())


@contextlib.contextmanager
def one_rank(configs: Sequence[RunConfig]) -> Iterator[None]:
    """What training has around its steps: the known warnings left out, and, where the runs go through FSDP2,
    a process group, here of this process alone.
    """
    with lightning_quiet(), contextlib.ExitStack() as stack:
        if any(is_sharded(config) for config in configs) and not dist.is_initialized():
            backend = "nccl" if bench_device(configs[0]).type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
            stack.callback(dist.destroy_process_group)
        yield
        release(configs)


def release(configs: Sequence[RunConfig]) -> None:
    """Give back the GPU memory of models that nothing holds any more; FSDP2's are in reference cycles."""
    if configs and bench_device(configs[0]).type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def mesh_of_one(device: torch.device) -> DeviceMesh:
    """A data-parallel mesh of this process."""
    return init_device_mesh(device.type, (1,), mesh_dim_names=("data_parallel",))


def batch_of(source: TokenSource, config: RunConfig, step: int) -> Tensor:
    """The global batch of `step`, ids [B, T + 1]."""
    training = config.training
    rows, length = training.batch_tokens // training.sequence_length, training.sequence_length + 1
    first = step * rows
    return torch.stack(
        [torch.from_numpy(source.train_row(config.seed, first + i, length).copy()) for i in range(rows)]
    )


def subjects(configs: Sequence[RunConfig], batches: int) -> list[StepSubject]:
    """One subject per configuration, which may differ in the variant alone.

    Raises:
        UsageError: no configuration, more than one protocol or seed, or a variant given twice.
    """
    check_comparable(configs)
    source = open_source(configs[0].data)
    return [StepSubject(config, source, batches) for config in configs]


def check_comparable(configs: Sequence[RunConfig]) -> None:
    """Refuse what no comparison can be made of.

    Raises:
        UsageError: as of `subjects`.
    """
    if not configs:
        raise UsageError("nothing to measure: expected at least one variant")
    for field in ("protocol_id", "seed"):
        found = sorted({str(getattr(config, field)) for config in configs})
        if len(found) > 1:
            raise UsageError(f"steps compare within one {field}: found {', '.join(found)}")
    names = [config.variant_name for config in configs]
    if len(set(names)) < len(names):
        raise UsageError(f"expected each variant once: found {', '.join(names)}")

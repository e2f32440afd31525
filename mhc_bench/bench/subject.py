"""One variant's training step, ready to be timed: our model, loss and optimizer without Lightning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mhc_bench.bench.rates import synchronize
from mhc_bench.config import RunConfig
from mhc_bench.data import TokenSource, open_source
from mhc_bench.errors import UsageError
from mhc_bench.model import materialise
from mhc_bench.training.layers import prepare_layers
from mhc_bench.training.module import ResidualTraining, build_model
from mhc_bench.training.operations import choice_for, with_operations


class StepSubject:
    """A run's model and optimizer, and batches that lie in memory before any step is timed."""

    def __init__(self, config: RunConfig, source: TokenSource, batches: int) -> None:
        model, start = build_model(config, source), config.model.initialisation
        config = with_operations(config, choice_for(config, model).operations)
        self.config = config
        self.name = config.variant_name
        self.device = bench_device(config)
        self.module = ResidualTraining(config, source)
        prepare_layers(model, config.hardware)
        materialise(
            model,
            config.seed,
            rule=start.rule,
            scale=start.scale,
            depth_scaled=start.depth_scaled,
            device=self.device,
        )
        self.module.model = model.train()
        made = self.module.configure_optimizers()
        self.optimizer, self.schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        self.batches = [batch_of(source, config, step).to(self.device) for step in range(batches)]
        self.steps = 0

    def step(self) -> Tensor:
        """Forward, loss, backward, clipping, AdamW, schedule; the loss, still on the device."""
        ids = self.batches[self.steps % len(self.batches)]
        bf16 = self.config.training.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            loss = self.module.token_losses(ids).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.module.configure_gradient_clipping(self.optimizer)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return loss.detach()

    def synchronize(self) -> None:
        """Wait for the device."""
        synchronize(self.device)


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
    if not configs:
        raise UsageError("nothing to measure: expected at least one variant")
    for field in ("protocol_id", "seed"):
        found = sorted({str(getattr(config, field)) for config in configs})
        if len(found) > 1:
            raise UsageError(f"steps compare within one {field}: found {', '.join(found)}")
    names = [config.variant_name for config in configs]
    if len(set(names)) < len(names):
        raise UsageError(f"expected each variant once: found {', '.join(names)}")
    source = open_source(configs[0].data)
    return [StepSubject(config, source, batches) for config in configs]

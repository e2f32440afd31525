"""Validation: a torchmetrics metric, and the callback that runs it every so many steps and at the end.

Lightning's own loop is not used: it skips the last step where the cadence does not hit it, and a checkpoint
written between a step and its validation would lose that row on resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

from mhc_bench.training.clock import Clock

if TYPE_CHECKING:
    from mhc_bench.training.module import ResidualTraining

MAX_EXPONENT = 700.0
"""exp of more overflows: perplexity is capped there."""


class TokenLoss(Metric):
    """Mean loss per token, perplexity and bits per byte over all ranks, summed in float64."""

    total: Tensor
    tokens: Tensor

    def __init__(self, bytes_per_token: float) -> None:
        super().__init__()
        self.bytes_per_token = bytes_per_token
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, losses: Tensor, weights: Tensor) -> None:
        """Add losses in nats [b, T] of rows that weigh `weights` [b]."""
        self.total += (losses.double().sum(dim=1) * weights).sum()
        self.tokens += weights.sum() * losses.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """`loss` in nats per token, `perplexity`, `bits_per_byte`."""
        loss = self.total / self.tokens
        return {
            "loss": loss,
            "perplexity": loss.clamp(max=MAX_EXPONENT).exp(),
            "bits_per_byte": loss / math.log(2) / self.bytes_per_token,
        }


class Validation(L.Callback):
    """Validates every `every` optimizer steps and after the last; hands the values to `report`."""

    def __init__(self, every: int, clock: Clock, report: Callable[[int, dict[str, float]], None]) -> None:
        self.every, self.clock, self.report = every, clock, report
        self.batches: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep this rank's validation batches on its device."""
        loader = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
        self.batches = [(ids.to(pl_module.device), weights.to(pl_module.device)) for ids, weights in loader]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Validate where it is time."""
        if not self.clock.stepped:
            return
        if self.clock.due(self.every):
            with self.clock.paused():
                self.report(self.clock.step, self.measure(cast("ResidualTraining", pl_module)))

    @torch.no_grad()
    def measure(self, module: ResidualTraining) -> dict[str, float]:
        """Loss, perplexity and bits per byte now; collective."""
        metric = module.validation
        metric.reset()
        module.eval()
        for number, batch in enumerate(self.batches):
            module.validation_step(batch, number)
        module.train()
        return {name: value.item() for name, value in metric.compute().items()}

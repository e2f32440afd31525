"""The LightningModule: a decoder with one variant grafted on, its loss, its optimizer. Shapes: `B T V`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from mhc_bench.config.schema import RunConfig
from mhc_bench.config.search import optimizer_of
from mhc_bench.data.order import mix
from mhc_bench.data.source import TokenSource
from mhc_bench.model import materialise, parameter_groups, perturb, shared_weight_digest, weight_digest
from mhc_bench.training.build import build_model
from mhc_bench.training.layers import prepare_layers
from mhc_bench.training.schedule import multiplier
from mhc_bench.training.sharding import (
    global_gradient_norm,
    join_replicas,
    limit_waiting,
    shard,
    sharding_mesh,
)
from mhc_bench.training.validation import TokenLoss

__all__ = ["ResidualTraining", "build_model", "prepared_model"]


def prepared_model(
    config: RunConfig, source: TokenSource, device: torch.device, mesh: DeviceMesh | None, world: int = 1
) -> PreTrainedModel:
    """A run's model as it trains: built on the meta device, sharded over `mesh` where there is one, and each
    parameter filled from (seed, name).
    """
    model, start = build_model(config, source), config.model.initialisation
    prepare_layers(model, config.hardware)
    if mesh is not None:
        shard(model, mesh, world, config.training.precision)
    materialise(
        model,
        config.seed,
        rule=start.rule,
        scale=start.scale,
        depth_scaled=start.depth_scaled,
        device=device,
    )
    return model


class ResidualTraining(L.LightningModule):
    """One run. After each optimizer step the attributes below hold what that step was."""

    model: PreTrainedModel

    def __init__(self, config: RunConfig, source: TokenSource) -> None:
        super().__init__()
        self.save_hyperparameters(dataclasses.asdict(config))
        self.config, self.source = config, source
        self.shared_digest = ""
        """Of the start weights that all variants share; of an A/A run, before the perturbation."""
        self.start_digest: str | None = None
        """Of an A/A run: of all weights after the perturbation."""
        self.losses: list[Tensor] = []
        """Mean loss of each forward pass of the current step on this rank."""
        self.row_digests: list[bytes] = []
        """Digests of this rank's rows of the current step."""
        self.gradient_norm = math.nan
        """Global norm before clipping."""
        self.diverged = False
        """A loss or gradient was not finite on some rank: the step was not taken and the run ends."""
        self.validation = TokenLoss(source.validation_bytes_per_token(config.training.sequence_length + 1))

    def configure_model(self) -> None:
        """Build on the meta device, shard, then fill each parameter from (seed, name)."""
        if hasattr(self, "model"):
            return
        mesh = (
            None
            if self.device_mesh is None
            else sharding_mesh(self.device_mesh["data_parallel"], self.config.hardware)
        )
        if mesh is not None and self.device_mesh is not None:
            limit_waiting((self.device_mesh, mesh), self.config.hardware)
        device, world = self.trainer.strategy.root_device, self.trainer.world_size
        model = prepared_model(self.config, self.source, device, mesh, world)
        self.shared_digest = shared_weight_digest(model)
        if relative := self.config.variant.perturbation:
            perturb(model, self.config.seed, relative)
            self.start_digest = weight_digest(model)
        self.model = model.train()

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """AdamW over the model's parameter groups, with a schedule that is a function of the step."""
        wanted, steps = optimizer_of(self.config), self.config.training.steps
        optimizer = AdamW(
            parameter_groups(self.model, wanted.weight_decay),
            lr=wanted.learning_rate,
            betas=(wanted.betas[0], wanted.betas[1]),
            eps=wanted.epsilon,
            fused=True,
        )
        schedule = LambdaLR(optimizer, lambda step: multiplier(wanted.schedule, step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def token_losses(self, ids: Tensor) -> Tensor:
        """Cross-entropy in nats of each next token, fp32 [b, T], for rows `ids` [b, T + 1]."""
        return F.cross_entropy(*self._predicted(ids), reduction="none").view(len(ids), -1)

    def _predicted(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, fp32 [b T, V], and the tokens they should predict, [b T], of rows [b, T + 1]."""
        logits = self.model(input_ids=ids[:, :-1], use_cache=False).logits.float()
        return logits.flatten(0, 1), ids[:, 1:].flatten()

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Random numbers are a function of (seed, step, part, rank): a resumed run needs no saved state."""
        parts = self.trainer.accumulate_grad_batches
        key = self.config.seed
        for part in (self.trainer.global_step, batch_idx % parts, self.global_rank):
            key = mix(key ^ part)
        torch.manual_seed(key >> 1)
        # replicas (hsdp) add their gradients up once per step, after the last of its parts
        join_replicas(self.model, (batch_idx + 1) % parts == 0)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Mean loss of this rank's part of the batch."""
        loss = F.cross_entropy(*self._predicted(batch["ids"]))
        self.losses.append(loss.detach())
        self.row_digests.extend(batch["digests"])
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add the losses of `(ids [b, T + 1], weights [b])` to the metric."""
        ids, weights = batch
        self.validation.update(self.token_losses(ids), weights)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Measure the global norm, clip by it; a step that is not finite on all ranks is taken on none."""
        norm, limit = global_gradient_norm(self.model), self.config.optimizer.clip
        self.gradient_norm = norm.item()
        if not _finite_on_all_ranks(norm, self.losses):
            self.diverged = True
            optimizer.zero_grad(set_to_none=True)  # AdamW leaves parameters without a gradient alone
        elif limit is not None and self.gradient_norm > limit:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), limit, norm)


def _finite_on_all_ranks(norm: Tensor, losses: list[Tensor]) -> bool:
    """Whether a step's gradient norm and losses are finite everywhere; collective.

    A loss may be infinite with finite gradients, and a rank sees its own losses only.
    """
    finite = torch.stack([norm, *losses]).isfinite().all().int()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(finite, dist.ReduceOp.MIN)
    return bool(finite.item())

"""A training loop as written by hand, on the stock transformers model: what our step is measured against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mhc_bench.bench.subject import batch_of, bench_device
from mhc_bench.config import RunConfig
from mhc_bench.data import TokenSource
from mhc_bench.model import (
    build_backbone,
    decoder_layers,
    materialise,
    parameter_groups,
    shared_weight_digest,
)
from mhc_bench.training.schedule import multiplier


class HandLoop:
    """Same weights, data, optimizer and schedule as a baseline run; no Lightning, logs, probes or graft."""

    def __init__(self, config: RunConfig, source: TokenSource) -> None:
        self.config, self.source, self.device = config, source, bench_device(config)
        tokenizer, start, wanted = source.tokenizer, config.model.initialisation, config.optimizer
        self.model = build_backbone(
            config.model.family,
            config.model.backbone,
            vocabulary=source.vocabulary,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
            max_positions=config.training.sequence_length,
        ).train()
        materialise(
            self.model,
            config.seed,
            rule=start.rule,
            scale=start.scale,
            depth_scaled=start.depth_scaled,
            device=self.device,
        )
        if config.hardware.compile:
            for _, layer in decoder_layers(self.model):
                layer.compile()
        self.start_digest = shared_weight_digest(self.model)
        self.optimizer = AdamW(
            parameter_groups(self.model, wanted.weight_decay),
            lr=wanted.learning_rate,
            betas=(wanted.betas[0], wanted.betas[1]),
            eps=wanted.epsilon,
            fused=True,
        )
        steps = config.training.steps
        self.schedule = LambdaLR(self.optimizer, lambda step: multiplier(wanted.schedule, step, steps))
        self.losses: list[Tensor] = []

    def run(self, steps: int) -> None:
        """Take `steps` steps from wherever the loop stands."""
        bf16, clip = self.config.training.precision == "bf16", self.config.optimizer.clip
        for _ in range(steps):
            ids = batch_of(self.source, self.config, len(self.losses)).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                logits = self.model(input_ids=ids[:, :-1], use_cache=False).logits
                loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.losses.append(loss.detach())

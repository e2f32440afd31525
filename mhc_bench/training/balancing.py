"""The callback that counts what routers choose, balances it without a loss, and writes it down."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mhc_bench.model.routing import correction_bias, count_choices, rebalance, routers
from mhc_bench.training.clock import Clock
from mhc_bench.training.module import ResidualTraining
from mhc_bench.training.recorder import Recorder
from mhc_bench.training.tables import Cell, Table

EXPERTS_FILE = "experts.csv"
COLUMNS = (
    "expert_load_max",
    "expert_load_max_average",
    "expert_load_min",
    "expert_bias_spread",
)
"""Load over the mean load of a router's experts, 1 where all are equal: the largest over all routers, the
routers' largest on average, the smallest over all routers; and the widest range of a correction bias."""


class ExpertBalancing(L.Callback):
    """Right after the recorder. Idle for a model without routers.

    A step's load is that of its training forward passes on all ranks: recomputation, validation and probes do
    not count. All ranks add the same numbers to the same biases.
    """

    def __init__(self, speed: float, every: int, run_dir: Path, clock: Clock, recorder: Recorder) -> None:
        self.speed, self.every, self.run_dir = speed, every, run_dir
        self.clock, self.recorder = clock, recorder
        self.routers: list[nn.Module] = []
        self.loads: list[Tensor] = []
        """Of each router, int64 [E]: tokens of the current step on this rank."""
        self.counting = False
        self.table: Table | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Watch the routers; the tables get their columns."""
        assert isinstance(pl_module, ResidualTraining)
        self.routers = list(routers(pl_module.model).values())
        self.loads = [torch.zeros_like(correction_bias(each), dtype=torch.int64) for each in self.routers]
        for router, load in zip(self.routers, self.loads, strict=True):
            router.register_forward_hook(functools.partial(self._count, load))
        if self.routers:
            self.recorder.more_columns = COLUMNS

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the table of experts."""
        if self.routers and trainer.is_global_zero:
            experts = max(load.numel() for load in self.loads)
            columns = ["step", "router", *(f"load_{expert}" for expert in range(experts))]
            self.table = Table(self.run_dir / EXPERTS_FILE, columns, trainer.global_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """From here on forward passes are training."""
        self.counting = True

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """What runs forward from here on only repeats."""
        self.counting = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """After a step that was taken: balance, and report where it is time."""
        if not (self.routers and self.clock.stepped):
            return
        if self.recorder.history.diverged_step is None:
            loads = self._joined()
            if self.speed:
                for router, load in zip(self.routers, loads, strict=True):
                    rebalance(correction_bias(router), load, self.speed)
            if self.clock.due(self.every):
                with self.clock.paused():
                    self._report(loads)
        for load in self.loads:
            load.zero_()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the table."""
        if self.table is not None:
            self.table.close()

    def _count(self, load: Tensor, router: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        if self.counting:
            count_choices(output, load)

    def _joined(self) -> list[Tensor]:
        """The step's load of each router over all ranks; collective."""
        joined = torch.cat(self.loads)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(joined)
        return list(joined.split([load.numel() for load in self.loads]))

    def _report(self, loads: list[Tensor]) -> None:
        """The load of this step and the bias after it."""
        step = self.clock.step
        shares = [(load.double() / load.double().mean()).tolist() for load in loads]
        largest = [max(share) for share in shares]
        spreads = [float(bias.max() - bias.min()) for bias in map(correction_bias, self.routers)]
        values = (
            max(largest),
            sum(largest) / len(largest),
            min(min(share) for share in shares),
            max(spreads),
        )
        scalars = dict(zip(COLUMNS, values, strict=True))
        self.recorder.history.add_probes(step, scalars)
        self.recorder.report(scalars)
        if self.table is not None:
            self.table.write(_row(step, router, share) for router, share in enumerate(shares))


def _row(step: int, router: int, share: list[float]) -> dict[str, Cell]:
    """One row of `experts.csv`: each expert's load over the mean."""
    loads = {f"load_{expert}": each for expert, each in enumerate(share)}
    return {"step": step, "router": router, **loads}

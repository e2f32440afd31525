"""The callback that measures the health of the residual connections while a run goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mhc_bench.files import write_json
from mhc_bench.model import residual_connections
from mhc_bench.training.clock import Clock
from mhc_bench.training.module import ResidualTraining
from mhc_bench.training.probes import Probe, Row
from mhc_bench.training.recorder import Recorder
from mhc_bench.training.tables import Table

PROBES_FILE = "probes.csv"
DEPTH_FILE = "depth.json"
OVER_DEPTH = ("forward_gain", "backward_gain", "composite_forward_gain", "composite_backward_gain")
"""The probes' columns that go into `depth.json`, beside the matrices."""
ROWS = 1
"""Validation rows that the probes look at, the same on every rank; one, as in the mHC paper, is enough."""


class Probes(L.Callback):
    """Measures before the first step, every `every` steps and after the last."""

    def __init__(self, every: int, run_dir: Path, clock: Clock, recorder: Recorder) -> None:
        self.every, self.run_dir, self.clock, self.recorder = every, run_dir, clock, recorder
        self.table: Table | None = None
        self.ids: Tensor | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the tables with the probes' names; a fresh run writes the start values."""
        assert isinstance(pl_module, ResidualTraining)
        rows = pl_module.source.validation_rows(pl_module.config.training.sequence_length + 1)[:ROWS]
        self.ids = torch.from_numpy(rows[:, :-1]).to(pl_module.device)
        scalars, sublayers, depth = self.measure(pl_module)
        if trainer.is_global_zero:
            self.recorder.open_table(list(scalars))
            self.table = Table(self.run_dir / PROBES_FILE, ["step", *sublayers[0]], trainer.global_step)
        if trainer.global_step == 0:
            self._report(scalars, sublayers, depth)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Measure where it is time."""
        if not self.clock.stepped:
            return
        if self.clock.due(self.every):
            with self.clock.paused():
                assert isinstance(pl_module, ResidualTraining)
                self._report(*self.measure(pl_module))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the table."""
        if self.table is not None:
            self.table.close()

    @torch.no_grad()
    def measure(self, module: ResidualTraining) -> tuple[Row, list[Row], dict[str, Any]]:
        """Scalars, a row per sublayer, gains and matrices over depth.

        Every rank takes part on the same rows: FSDP communicates.
        """
        assert self.ids is not None
        probe = Probe(residual_connections(module.model), seed=module.config.seed)
        # compiled layers would go past what the probe puts around the connections' methods
        with probe, torch.compiler.set_stance("force_eager"):
            module.model(input_ids=self.ids, use_cache=False)
        scalars, sublayers = probe.measure()
        return scalars, sublayers, _over_depth(sublayers, probe.mixing())

    def _report(self, scalars: Row, sublayers: list[Row], depth: dict[str, Any]) -> None:
        step = self.clock.step
        self.recorder.history.add_probes(step, scalars)
        self.recorder.report(scalars)
        if self.table is not None:
            self.table.write([{"step": step, **row} for row in sublayers])
            if depth:
                write_json(self.run_dir / DEPTH_FILE, {"step": step, **depth})


def _over_depth(sublayers: list[Row], mixing: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """Gains by sublayer and mean matrices as JSON can hold them; nothing where a sublayer has no maps."""
    if mixing is None:
        return {}
    gains = {name: [_short(row[name]) for row in sublayers] for name in OVER_DEPTH}
    matrices, product = (_nested(each.tolist()) for each in mixing)
    return {**gains, "mixing": matrices, "product": product}


def _nested(values: Any) -> Any:
    return [_nested(value) for value in values] if isinstance(values, list) else _short(values)


def _short(value: float) -> float | None:
    """Six digits; None for what is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None

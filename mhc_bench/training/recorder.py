"""The callback that keeps a run's history and writes it down: metrics, loggers, progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from mhc_bench.config.schema import RunConfig
from mhc_bench.config.search import optimizer_of
from mhc_bench.errors import RunError
from mhc_bench.files import remove_unfinished
from mhc_bench.training.clock import Clock
from mhc_bench.training.history import History
from mhc_bench.training.module import ResidualTraining
from mhc_bench.training.progress import RunProgress
from mhc_bench.training.schedule import multiplier
from mhc_bench.training.tables import Cell, Table

METRICS_FILE = "metrics.csv"
JOB_FILE = "slurm.json"
"""What submits a run as a job may still be writing it while the run begins."""
TRAIN_COLUMNS = ("step", "tokens", "loss", "gradient_norm", "learning_rate", "tokens_per_second")
VALIDATION_COLUMNS = ("validation_loss", "validation_perplexity", "validation_bits_per_byte")


class Recorder(L.Callback):
    """First of the callbacks: sets the clock after each batch. All ranks keep history, rank 0 writes."""

    def __init__(self, config: RunConfig, run_dir: Path, clock: Clock, quiet: bool) -> None:
        self.config, self.run_dir, self.clock, self.quiet = config, run_dir, clock, quiet
        self.history = History()
        self.progress: RunProgress | None = None
        self.table: Table | None = None
        self.more_columns: Sequence[str] = ()
        """Columns of `metrics.csv` that only some models have, set before training starts."""
        self.loggers: Sequence[L.pytorch.loggers.Logger] = ()
        self._rows_done = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Clear away what a killed process left half-written: all ranks have come, and none writes yet."""
        if trainer.is_global_zero:
            remove_unfinished(self.run_dir, JOB_FILE)

    def state_dict(self) -> dict[str, Any]:
        return self.history.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.restore(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take up at the trainer's step."""
        step, steps = trainer.global_step, self.config.training.steps
        if len(self.history) != step:
            raise RunError(f"the checkpoint is at step {step} but holds the history of {len(self.history)}")
        hardware = self.config.hardware
        self.history.runs_on(self.config.cost_id, hardware.devices, hardware.nodes, hardware.sharding)
        self.clock.step, self.loggers = step, trainer.loggers
        # a row of the table may have begun before the checkpoint
        self._rows_done = step - step % self.config.logging.every
        if trainer.is_global_zero:
            label = f"{self.config.variant_name} seed {self.config.seed}"
            self.progress = RunProgress(self.run_dir, label, steps, self.quiet)
            self.progress.start(step)

    def open_table(self, probe_names: Sequence[str]) -> None:
        """Open `metrics.csv` once the probes' names are known; rank 0."""
        columns = (*TRAIN_COLUMNS, *VALIDATION_COLUMNS, *self.more_columns, *probe_names)
        self.table = Table(self.run_dir / METRICS_FILE, columns, self.clock.step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """The first step begins when its batch is there: what came before is set-up."""
        self.clock.begin()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Record the step, if the batch completed one."""
        assert isinstance(pl_module, ResidualTraining)
        self.clock.stepped = trainer.global_step > self.clock.step
        if not self.clock.stepped:
            return
        seconds = self.clock.lap()
        if pl_module.diverged:
            self.history.diverged_step = trainer.global_step
            trainer.should_stop = self.clock.ending = True
            self.clock.taken = False
        else:
            self.clock.step = trainer.global_step
            self.clock.ending = self.clock.step == self.config.training.steps
            self.history.add(pl_module.losses, pl_module.row_digests, pl_module.gradient_norm, seconds)
        pl_module.losses.clear()
        pl_module.row_digests.clear()
        if self.clock.step % self.config.logging.every == 0 or self.clock.ending:
            self.history.flush()
            self._write_step()
        self._show()

    def report(self, values: dict[str, float]) -> None:
        """Write values measured after the current step to table and loggers."""
        if self.table is not None:
            row: dict[str, Cell] = {"step": self.clock.step, "tokens": self.tokens, **values}
            self.table.write([row])
        for logger in self.loggers:
            logger.log_metrics(values, self.clock.step)

    def report_validation(self, step: int, values: dict[str, float]) -> None:
        """Keep and write a validation."""
        self.history.add_validation(step, self.tokens, values)
        self.report({f"validation_{name}": value for name, value in values.items()})

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.clock.step * self.config.training.batch_tokens

    def _write_step(self) -> None:
        new = slice(self._rows_done, self.clock.step)
        losses, norms, seconds = self.history.losses[new], self.history.norms[new], self.history.seconds[new]
        self._rows_done = self.clock.step
        if not losses:
            return
        rate = multiplier(self.config.optimizer.schedule, self.clock.step - 1, self.config.training.steps)
        self.report(
            {
                "loss": sum(losses) / len(losses),
                "gradient_norm": max(norms),
                "learning_rate": rate * optimizer_of(self.config).learning_rate,
                "tokens_per_second": len(seconds) * self.config.training.batch_tokens / sum(seconds),
            }
        )

    def _show(self) -> None:
        if self.progress is None:
            return
        recent = self.history.seconds[-20:]
        mean = sum(recent) / max(1, len(recent))
        loss = self.history.losses[-1] if self.history.losses else None
        left = (self.config.training.steps - self.clock.step) * mean
        self.progress.update(
            self.clock.step, loss, self.config.training.batch_tokens / mean if mean else 0.0, left
        )

    def close(self) -> None:
        """Close table and bar, remove `progress.json`."""
        if self.table is not None:
            self.table.close()
        if self.progress is not None:
            self.progress.stop(self.clock.step)

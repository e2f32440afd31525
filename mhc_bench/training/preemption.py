"""Training ends after the current step, with a checkpoint, where any of its ranks is told to stop.

Each rank votes after each step and reads the votes after the next one, when they have long arrived: no rank
waits for another, and all stop after the same step. So a run needs the time of two steps and of one
checkpoint between the signal and its end.
"""

from __future__ import annotations

from datetime import timedelta

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from mhc_bench.stopping import StopNotice
from mhc_bench.training.clock import Clock
from mhc_bench.training.state import PortableState


class Votes:
    """Whether any rank said yes one call ago; over gloo, so that no GPU is waited for. One rank: now."""

    def __init__(self, patience: timedelta | None = None) -> None:
        """`patience`: how long to wait for a rank's vote."""
        several = dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo", timeout=patience) if several else None
        self._cast: Tensor | None = None
        self._work: dist.Work | None = None

    def cast(self, vote: bool) -> bool:
        """Give this rank's vote; returns whether any voted yes the time before. Collective."""
        if self._group is None:
            return vote
        before = self.result()
        self._cast = torch.tensor(int(vote))
        self._work = dist.all_reduce(self._cast, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return before

    def result(self) -> bool:
        """Whether any rank voted yes last time; False before the first vote."""
        if self._work is None or self._cast is None:
            return False
        self._work.wait()
        return bool(self._cast.item())


class Preemption(L.Callback):
    """Just before `Checkpoints`, which then saves: makes the current step the last one for now."""

    def __init__(self, notice: StopNotice, clock: Clock) -> None:
        self.notice, self.clock = notice, clock
        self.stopped = False
        """Whether training ended early, to be gone on with."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning has handlers of its own by now, which would end the run without a checkpoint."""
        self.notice.listen_again()
        assert isinstance(trainer.strategy, PortableState)
        self.votes = Votes(trainer.strategy.patience)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop where the ranks have agreed to; a run at its own end goes to that end."""
        if not self.clock.stepped or self.clock.ending:
            return
        if self.votes.cast(self.notice.told):
            self.stopped = trainer.should_stop = self.clock.ending = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for the votes that are under way and, before the ranks end, for rank 0's checkpoint."""
        self.votes.result()
        if self.stopped:
            trainer.strategy.barrier()

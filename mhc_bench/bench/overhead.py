"""What Lightning, logging and probes add to a training step, against a hand-written loop beside them."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np

from mhc_bench.bench.handloop import HandLoop
from mhc_bench.bench.step import BASELINE
from mhc_bench.bench.timing import Interval, median_interval
from mhc_bench.config import RunConfig, VariantConfig
from mhc_bench.data import open_source
from mhc_bench.data.module import TokenData
from mhc_bench.errors import RunError
from mhc_bench.processor import processor
from mhc_bench.training.clock import Clock
from mhc_bench.training.fitting import lightning_quiet, make_trainer
from mhc_bench.training.module import ResidualTraining
from mhc_bench.training.recorder import Recorder

COMPARED = 10
"""Steps over which the losses of the two loops are compared."""
FEWEST_CHUNKS, MOST_CHUNKS = 3, 6
LONGEST_SECONDS = 120.0
"""Of both loops together, where more than the fewest chunks are measured."""


@dataclass(frozen=True)
class Overhead:
    """Steps, ours and by hand in turn, in chunks that hold the same number of log rows and probes."""

    chunk_steps: int
    chunks: int
    ours_seconds: float
    """Median seconds per step of the suite's training: Lightning, data, logging, probes."""
    hand_seconds: float
    """Median seconds per step of the hand-written loop on the stock model, data included."""
    ratio: Interval
    """Ours over the hand-written steps between them, per chunk."""
    largest_loss_difference: float
    """Between the two loops over the first steps, before rounding grows: near 0 if both do the same work."""


class HandOver(L.Callback):
    """Last of the callbacks: after each of our steps, the hand-written loop takes one."""

    def __init__(self, loop: HandLoop, chunk: int, clock: Clock) -> None:
        self.loop, self.chunk, self.clock = loop, chunk, clock
        self.times: list[tuple[float, float]] = []
        """Seconds of each chunk: ours, by hand."""
        self._ours = self._by_hand = self._mark = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """The first chunk begins with the first batch."""
        if self._mark == 0.0:
            self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Hand over; from the return to here everything counts as ours."""
        handed = time.perf_counter()
        with self.clock.paused():
            self.loop.run(1)
        back = time.perf_counter()
        self._ours += handed - self._mark
        self._by_hand += back - handed
        if trainer.global_step % self.chunk == 0:
            self.times.append((self._ours, self._by_hand))
            self._ours = self._by_hand = 0.0
        self._mark = time.perf_counter()


def chunk_steps(config: RunConfig) -> int:
    """The least number of steps that holds whole cadences of logging and probes."""
    return math.lcm(config.training.probe_every, config.logging.every)


def affordable_chunks(config: RunConfig, pair_seconds: float) -> int:
    """How many chunks to measure when a step of both loops together takes `pair_seconds`."""
    most = int(LONGEST_SECONDS / (chunk_steps(config) * pair_seconds)) - 1
    return min(MOST_CHUNKS, max(FEWEST_CHUNKS, most))


def measure_overhead(config: RunConfig, chunks: int = MOST_CHUNKS, chunk: int | None = None) -> Overhead:
    """Train the baseline of `config` on one device, with its logging and probes, beside a hand loop.

    Validation and checkpoints, which a run takes now and then, are left out of both.

    Args:
        chunks: measured chunks, after one that is not counted.
        chunk: steps of a chunk; default: `chunk_steps`.

    Raises:
        RunError: the two loops did not start from the same weights.
    """
    size = chunk or chunk_steps(config)
    # one step more than the last chunk: what the end of a run costs belongs to no chunk
    steps = (chunks + 1) * size + 1
    run = _plain(config, steps)
    with processor(run.hardware.threads), tempfile.TemporaryDirectory() as folder, lightning_quiet():
        return _measure(run, Path(folder), size)


def _plain(config: RunConfig, steps: int) -> RunConfig:
    """The baseline on one device, without validation and checkpoints before the end."""
    return dataclasses.replace(
        config,
        variant_name=BASELINE,
        variant=VariantConfig(connection=BASELINE),
        training=dataclasses.replace(config.training, steps=steps, validate_every=steps),
        hardware=dataclasses.replace(config.hardware, devices=1, nodes=1, sharding="none", rows_per_device=0),
        logging=dataclasses.replace(config.logging, checkpoint_every=steps),
    )


def _measure(run: RunConfig, folder: Path, chunk: int) -> Overhead:
    source, clock = open_source(run.data), Clock()
    module, recorder = ResidualTraining(run, source), Recorder(run, folder, clock, True)
    loop = HandLoop(run, source)
    trainer, hand = make_trainer(run, folder, recorder, clock), HandOver(loop, chunk, clock)
    trainer.callbacks.append(hand)  # type: ignore[attr-defined]
    L.seed_everything(run.seed, verbose=False)
    try:
        trainer.fit(module, datamodule=TokenData(run, source))
        recorder.history.flush()
    finally:
        recorder.close()
    if module.shared_digest != loop.start_digest:
        raise RunError("bench step: the stock model and ours did not start from the same weights")
    ours, by_hand = np.array(hand.times[1:]).T
    pairs = list(zip(recorder.history.losses, loop.losses, strict=False))[:COMPARED]
    return Overhead(
        chunk_steps=chunk,
        chunks=len(ours),
        ours_seconds=float(np.median(ours)) / chunk,
        hand_seconds=float(np.median(by_hand)) / chunk,
        ratio=median_interval(ours / by_hand),
        largest_loss_difference=max(abs(left - float(right)) for left, right in pairs),
    )

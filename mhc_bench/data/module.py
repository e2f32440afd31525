"""The LightningDataModule: which row goes to which rank in which step. Shapes: `B T`, rows hold T + 1 tokens.

The position in the stream comes from the trainer's step, so nothing about data is saved in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from mhc_bench.config.schema import RunConfig
from mhc_bench.data.digest import row_digest
from mhc_bench.data.source import TokenSource


@dataclass(frozen=True)
class BatchPlan:
    """How the rows of one optimizer step are shared: equal slices for the ranks, equal parts of those."""

    rows: int
    """Rows of the global batch."""
    world: int
    part: int
    """Rows of one forward pass on one rank; divides rows / world."""

    @classmethod
    def of(cls, config: RunConfig, world: int) -> BatchPlan:
        """The plan of a run on `world` ranks."""
        rows = config.training.batch_tokens // config.training.sequence_length
        return cls(rows, world, config.hardware.rows_per_device or rows // world)

    @property
    def parts(self) -> int:
        """Forward passes per optimizer step."""
        return self.rows // self.world // self.part

    def indices(self, step: int, rank: int) -> list[list[int]]:
        """Row indices of the stream for each forward pass of `rank` in `step`, `[parts][part]`."""
        share = self.rows // self.world
        first = step * self.rows + rank * share
        return [list(range(start, start + self.part)) for start in range(first, first + share, self.part)]


class TrainingRows(Dataset[tuple[Tensor, bytes]]):
    """Rows of the stream by index, each with its digest."""

    def __init__(self, source: TokenSource, seed: int, length: int) -> None:
        self.source, self.seed, self.length = source, seed, length

    def __getitem__(self, index: int) -> tuple[Tensor, bytes]:
        row = self.source.train_row(self.seed, index, self.length)
        return torch.from_numpy(np.ascontiguousarray(row)), row_digest(row)


class StepSampler(Sampler[list[int]]):
    """The forward passes of one rank from step `start` to the end; its length counts those before too."""

    def __init__(self, plan: BatchPlan, rank: int, start: int, steps: int) -> None:
        self.plan, self.rank, self.start, self.steps = plan, rank, start, steps

    def __len__(self) -> int:
        # Lightning compares this with the passes of the whole run, also after a resume
        return self.steps * self.plan.parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield from self.plan.indices(step, self.rank)


def collate(samples: list[tuple[Tensor, bytes]]) -> dict[str, Tensor | list[bytes]]:
    """`ids` [b, T + 1] and the rows' `digests` in order."""
    return {"ids": torch.stack([ids for ids, _ in samples]), "digests": [digest for _, digest in samples]}


class TokenData(L.LightningDataModule):
    """Training and validation batches of one rank of a run."""

    def __init__(self, config: RunConfig, source: TokenSource) -> None:
        super().__init__()
        self.config, self.source = config, source

    def train_dataloader(self) -> DataLoader[tuple[Tensor, bytes]]:
        """Batches from the trainer's step on. Called by Lightning after a checkpoint has been restored."""
        trainer, training = self.trainer, self.config.training
        assert trainer is not None
        plan = BatchPlan.of(self.config, trainer.world_size)
        return DataLoader(
            TrainingRows(self.source, self.config.seed, training.sequence_length + 1),
            batch_sampler=StepSampler(plan, trainer.global_rank, trainer.global_step, training.steps),
            collate_fn=collate,
            num_workers=self.config.hardware.workers,
            timeout=self.config.hardware.worker_timeout if self.config.hardware.workers else 0,
            pin_memory=self.config.hardware.accelerator == "gpu",
            generator=torch.Generator(),  # otherwise every iter() draws from the global generator
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """This rank's validation rows with weights: `(ids [b, T + 1], weights [b])`.

        All ranks get the same number of rows, since their forward passes communicate; rows that only fill up
        weigh 0.
        """
        trainer = self.trainer
        assert trainer is not None
        rows = torch.from_numpy(self.source.validation_rows(self.config.training.sequence_length + 1))
        mine = torch.arange(trainer.global_rank, -(-len(rows) // trainer.world_size) * trainer.world_size)
        mine = mine[:: trainer.world_size]
        dataset = TensorDataset(rows[mine.clamp(max=len(rows) - 1)], (mine < len(rows)).double())
        size = BatchPlan.of(self.config, trainer.world_size).part
        return DataLoader(dataset, batch_size=size, generator=torch.Generator())

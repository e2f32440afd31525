"""Which rows a rank sees: a function of the step alone, without a draw from the global generator."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run

from mhc_bench.config import RunConfig
from mhc_bench.data.module import BatchPlan, StepSampler, TokenData


class Counting:
    """A source whose rows tell their index."""

    def train_row(self, seed: int, index: int, length: int) -> np.ndarray:
        return np.full(length, 1000 * seed + index, dtype=np.int64)

    def validation_rows(self, length: int) -> np.ndarray:
        return np.arange(7)[:, None].repeat(length, axis=1)


@pytest.fixture
def config(tmp_path: Any) -> RunConfig:
    return tiny_run(tmp_path, steps=5)  # four rows of sixteen tokens a step


def data(config: RunConfig, rank: int = 0, world: int = 1, step: int = 0) -> TokenData:
    module = TokenData(config, Counting())  # type: ignore[arg-type]
    module.trainer = SimpleNamespace(world_size=world, global_rank=rank, global_step=step)  # type: ignore[assignment]
    return module


def rows(module: TokenData) -> list[list[int]]:
    return [batch["ids"][:, 0].tolist() for batch in module.train_dataloader()]


def test_the_batches_of_the_ranks_make_up_the_batch_of_one(config: RunConfig) -> None:
    one = rows(data(config))
    assert one == [[4 * step + place for place in range(4)] for step in range(5)]
    for world in (2, 4):
        parts = [rows(data(config, rank, world)) for rank in range(world)]
        assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == one


def test_parts_of_a_step_follow_each_other(config: RunConfig) -> None:
    config.hardware.rows_per_device = 1
    assert rows(data(config, 1, 2))[:4] == [[2], [3], [6], [7]]
    assert BatchPlan.of(config, 2).parts == 2


def test_a_resumed_loader_goes_on_with_the_trainers_step(config: RunConfig) -> None:
    assert rows(data(config, step=3)) == rows(data(config))[3:]
    assert len(data(config, step=3).train_dataloader()) == 5


def test_loaders_leave_the_global_generator_alone(config: RunConfig) -> None:
    before = torch.get_rng_state()
    rows(data(config))
    list(data(config).val_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_worker_processes_give_the_same_batches(config: RunConfig) -> None:
    expected = rows(data(config))
    config.hardware.workers = 1
    assert rows(data(config)) == expected


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_each_validation_row_counts_once_and_ranks_take_equally_many_passes(
    config: RunConfig, world: int
) -> None:
    config.training.batch_tokens = 16 * 12
    weights: dict[int, float] = {}
    passes = set()
    for rank in range(world):
        batches = list(data(config, rank, world).val_dataloader())
        passes.add(tuple(len(ids) for ids, _ in batches))
        for ids, share in batches:
            for row, weight in zip(ids[:, 0].tolist(), share.tolist(), strict=True):
                weights[row] = weights.get(row, 0) + weight
    assert len(passes) == 1
    assert weights == dict.fromkeys(range(7), 1.0)


def test_a_sampler_can_be_iterated_again(config: RunConfig) -> None:
    sampler = StepSampler(BatchPlan.of(config, 1), 0, 1, 3)
    assert list(sampler) == list(sampler) == [[4, 5, 6, 7], [8, 9, 10, 11]]

"""A rank or a data worker that hangs ends its run with an error, within the time that the hardware states."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, on_ranks
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import load_suite, run_configs
from mhc_bench.data.module import TrainingRows
from mhc_bench.files import write_json
from mhc_bench.suite.evaluating import evaluate_run
from mhc_bench.training import fit, module
from mhc_bench.training.preemption import Preemption

SECONDS = 2
LATEST = 60
"""What a busy machine may need besides; without the time-out it would be half an hour."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def hang(*_: object) -> Any:
    time.sleep(600)


def told(work: Callable[[], object]) -> tuple[str, float]:
    """The error that ends `work`, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        work()
    return str(caught.value), time.monotonic() - began


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("owner", "method"),
    [(module.ResidualTraining, "training_step"), (Preemption, "on_train_batch_end")],
    ids=["the shards' group", "the votes' group"],
)
def test_a_rank_that_waits_for_a_hanging_one_ends_with_an_error(
    corpus: Path, tmp_path: Path, owner: type, method: str
) -> None:
    config = tiny_run(
        corpus, "mhc", hardware__sharding="fsdp", hardware__devices=2, hardware__collective_timeout=SECONDS
    )

    def work(rank: int) -> tuple[str, float] | None:
        if rank == 1:
            setattr(owner, method, hang)
        found = told(lambda: fit(config, tmp_path))
        (tmp_path / "told").write_text(found[0])
        os._exit(3)  # the other rank is ended when this one is

    began = time.monotonic()
    codes = [code for code, _ in on_ranks(work)]
    assert codes[0] == 3 and time.monotonic() - began < LATEST
    assert "time" in (said := (tmp_path / "told").read_text()).lower() and "out" in said


@pytest.mark.ranks
def test_a_rank_that_waits_for_another_to_begin_an_evaluation_ends_with_an_error(
    corpus: Path, tmp_path: Path
) -> None:
    config = tiny_run(
        corpus, evaluation__tasks=["world_piqa"], hardware__devices=2, hardware__collective_timeout=SECONDS
    )
    write_json(tmp_path / "training.json", {"status": "complete"})

    def work(rank: int) -> tuple[str, float] | None:
        return hang() if rank == 1 else told(lambda: evaluate_run(config, tmp_path, tmp_path))

    def first(rank: int) -> None:
        (tmp_path / "told").write_text(str(work(rank)))
        os._exit(3)  # the other rank is ended when this one is

    began = time.monotonic()
    codes = [code for code, _ in on_ranks(first)]
    assert codes[0] == 3 and time.monotonic() - began < LATEST
    assert "timed out" in (tmp_path / "told").read_text().lower()


def test_training_that_waits_for_a_hanging_data_worker_ends_with_an_error(
    corpus: Path, tmp_path: Path
) -> None:
    config = tiny_run(corpus, hardware__workers=1, hardware__worker_timeout=SECONDS)

    def work() -> tuple[str, float]:
        TrainingRows.__getitem__ = hang  # type: ignore[method-assign]
        found = told(lambda: fit(config, tmp_path))
        (tmp_path / "told").write_text(str(found))
        for hanging in multiprocessing.active_children():  # as Python does at the end of a process
            hanging.kill()
        os._exit(3)

    assert in_child(work, LATEST)[0] == 3
    assert f"DataLoader timed out after {SECONDS} seconds" in (tmp_path / "told").read_text()


def test_the_time_outs_change_no_id_while_they_are_the_usual_ones() -> None:
    usual = ["hardware.collective_timeout=1800", "hardware.worker_timeout=600"]
    for plain, stated in zip(
        run_configs(load_suite("smoke")), run_configs(load_suite("smoke", usual)), strict=True
    ):
        assert (plain.protocol_id, plain.cost_id) == (stated.protocol_id, stated.cost_id)

"""A run whose loss or gradient is not finite ends there on all ranks, is kept for study, and is a row."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import KILLED, in_child, on_ranks
from safetensors.torch import load_file
from test_resume import die, rows
from tiny_runs import tiny_run, write_corpus

from mhc_bench import cli
from mhc_bench.config import RunConfig
from mhc_bench.training import TrainingSummary, fit, fitting, module
from mhc_bench.training.checkpoints import checkpoint_folders

STEPS, BAD = 7, 5
"""The fifth step is the one that is not finite."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def infinite_loss(self: Any) -> None:
    """The gradient stays finite."""
    self.losses[-1] = torch.full_like(self.losses[-1], math.inf)


def nan_gradient(self: Any) -> None:
    next(p for p in self.model.parameters() if p.grad is not None).grad.mul_(math.nan)


def in_step(number: int, change: Callable[[Any], None]) -> None:
    """From here on `change` is made, in this process, after the backward pass of one step (from 1)."""
    clip, steps = module.ResidualTraining.configure_gradient_clipping, iter(range(1, 1000))

    def clipping(self: Any, *args: Any, **kwargs: Any) -> None:
        if next(steps) == number:
            change(self)
        clip(self, *args, **kwargs)

    module.ResidualTraining.configure_gradient_clipping = clipping  # type: ignore[method-assign]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for shard in folder.glob("shard-*"):
        found |= load_file(shard)
    return found


def test_what_was_measured_before_the_step_that_was_not_taken_is_not_measured_again(
    corpus: Path, tmp_path: Path
) -> None:
    def work() -> TrainingSummary:
        in_step(4, nan_gradient)
        return fit(tiny_run(corpus, "mhc", steps=STEPS), tmp_path)

    _, summary = in_child(work)
    assert [point["step"] for point in summary.validation] == [3]
    probed = [row["step"] for row in rows(tmp_path, "metrics.csv") if row["composite_forward_gain"]]
    assert probed == ["0", "3"]


@pytest.mark.parametrize("change", [infinite_loss, nan_gradient])
def test_a_step_that_is_not_finite_ends_the_run_and_leaves_the_state_before_it(
    corpus: Path, tmp_path: Path, change: Callable[[Any], None]
) -> None:
    def work() -> TrainingSummary:
        in_step(BAD, change)
        return fit(tiny_run(corpus, "mhc", steps=STEPS), tmp_path)

    code, summary = in_child(work)
    assert code == 0
    assert (summary.status, summary.steps, summary.diverged_step) == ("diverged", BAD - 1, BAD)
    assert summary.nonfinite_steps == 1
    assert math.isfinite(summary.last_loss)
    assert [point["step"] for point in summary.validation] == [3, BAD - 1]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"final", f"diverged-0000000{BAD}"}
    final = load_file(tmp_path / "checkpoints" / "final" / "model.safetensors")
    study = weights_of(tmp_path / "checkpoints" / f"diverged-0000000{BAD}")
    assert all(torch.equal(study[f"weights.{name}"], value) for name, value in final.items())
    assert any(name.startswith("optimizer.") for name in study)


def test_the_state_for_study_is_that_of_a_run_which_took_no_further_step(
    corpus: Path, tmp_path: Path
) -> None:
    def stopped() -> None:
        in_step(BAD, die)
        fit(tiny_run(corpus, steps=STEPS, logging__checkpoint_every=1), tmp_path / "stopped")

    def diverged() -> None:
        in_step(BAD, nan_gradient)
        fit(tiny_run(corpus, steps=STEPS, logging__checkpoint_every=1), tmp_path / "diverged")

    assert in_child(stopped)[0] == KILLED and in_child(diverged)[0] == 0
    expected = weights_of(checkpoint_folders(tmp_path / "stopped")[0])
    study = weights_of(tmp_path / "diverged" / "checkpoints" / f"diverged-0000000{BAD}")
    assert expected.keys() == study.keys()
    assert all(torch.equal(study[name], value) for name, value in expected.items())


def test_a_run_killed_between_its_divergence_and_its_summary_diverges_again(
    corpus: Path, tmp_path: Path
) -> None:
    def work(killed: bool) -> TrainingSummary:
        done = 2 * ((BAD - 1) // 2)  # the checkpoint that the second start goes on from
        in_step(BAD if killed else BAD - done, nan_gradient)
        if killed:
            fitting.write_summary = die
        return fit(tiny_run(corpus, steps=STEPS), tmp_path)

    assert in_child(lambda: work(True))[0] == KILLED
    code, summary = in_child(lambda: work(False))
    assert code == 0 and (summary.diverged_step, summary.restarts) == (BAD, 1)


def on_two(corpus: Path, folder: Path) -> RunConfig:
    return tiny_run(corpus, "mhc", steps=STEPS, hardware__sharding="fsdp", hardware__devices=2)


@pytest.mark.ranks
@pytest.mark.parametrize("change", [infinite_loss, nan_gradient])
def test_all_ranks_stop_at_the_step_that_one_of_them_sees(
    corpus: Path, tmp_path: Path, change: Callable[[Any], None]
) -> None:
    def work(rank: int) -> TrainingSummary:
        if rank == 1:
            in_step(BAD, change)
        return fit(on_two(corpus, tmp_path), tmp_path)

    (code, first), (other, second) = on_ranks(work)
    assert code == other == 0 and first == second
    assert (first.status, first.steps, first.diverged_step) == ("diverged", BAD - 1, BAD)
    assert len(list((tmp_path / "checkpoints" / f"diverged-0000000{BAD}").glob("shard-*"))) == 2


@pytest.mark.long
def test_a_suite_goes_on_past_a_diverged_run_and_its_leaderboard_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys_path()]))
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr("mhc_bench.suite.cost.ROUNDS", 1)
    few = ["training.steps=4", "training.validate_every=2", "training.probe_every=2", "evaluation.tasks=[]"]
    chosen = ["variants=[baseline,breaking_variant:Exploding]", "hardware.side_by_side=1"]
    assert cli.main(["run", "smoke", *few, *chosen, "--runs", str(tmp_path)]) == 0
    statuses = {
        path.parents[1].name: json.loads(path.read_text())["status"] for path in tmp_path.rglob("record.json")
    }
    assert statuses == {"baseline": "complete", "Exploding": "diverged"}
    (page,) = tmp_path.glob("smoke-*/leaderboard/leaderboard.md")
    assert "Exploding diverged in 1 of 1 seeds" in page.read_text()


def sys_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

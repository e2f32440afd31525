"""An exported run: a checkpoint that transformers and lm-eval's own command line read, with a model card."""

from __future__ import annotations

import json
from pathlib import Path

import evaluation_toy as toy
import pytest
import torch

from mhc_bench.config import save_run_config
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation import export_run
from mhc_bench.evaluation.harness import run_tasks
from mhc_bench.evaluation.scores import summarise
from mhc_bench.evaluation.summary import EvaluationSummary, write_evaluation
from mhc_bench.model import graft, load_model, save_model

NAMES = [toy.CHOICE, toy.GENERATION]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def summary(tasks: Path, run_dir: Path) -> EvaluationSummary:
    model, tokenizer = load_model(run_dir / "checkpoints" / "final")
    outcome = run_tasks(model, tokenizer, NAMES, folder=tasks, metadata={"world_seed": 3})
    return summarise(outcome, {}, 0.0)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model is a toy with mHC grafted on, its maps away from their start."""
    folder = tmp_path_factory.mktemp("run")
    save_run_config(toy.run_config(), folder)
    model = graft(toy.model(), "mhc")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "residual" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_model(model, toy.tokenizer(), folder / "checkpoints" / "final")
    (folder / "training.json").write_text(json.dumps(toy.TRAINING))
    return folder


def test_the_export_holds_the_same_weights(run_dir: Path, tmp_path: Path) -> None:
    out = export_run(run_dir, tmp_path / "new" / "export")
    first, _ = load_model(run_dir / "checkpoints" / "final")
    second, tokenizer = load_model(out)
    for (name, left), (other, right) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(left, right)
    assert tokenizer.encode("w3 .") == toy.tokenizer().encode("w3 .")
    assert [path.name for path in out.parent.iterdir()] == ["export"]


def test_the_card_says_what_the_model_is_and_what_it_scored(
    run_dir: Path, summary: EvaluationSummary, tmp_path: Path
) -> None:
    bare = (export_run(run_dir, tmp_path / "bare") / "README.md").read_text()
    assert "has not been evaluated" in bare
    write_evaluation({}, summary, run_dir)
    try:
        card = (export_run(run_dir, tmp_path / "scored") / "README.md").read_text()
    finally:
        (run_dir / "evaluation.json").unlink()
    run = toy.run_config()
    for expected in (
        "`mhc`",
        run.protocol_id,
        "12,345 tokens",
        "loss 1.2500",
        "nothing about natural language",
    ):
        assert expected in card
    assert f"| {summary.tasks[toy.CHOICE].value:.3f} |" in card
    assert str(run_dir) not in card


def test_exporting_prints_nothing(run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_run(run_dir, tmp_path / "export")
    assert capfd.readouterr() == ("", "")


def test_a_folder_with_something_in_it_is_refused_untouched(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        export_run(run_dir, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    export_run(run_dir, out)
    assert (out / "config.json").is_file()


def test_an_unfinished_run_is_refused_and_nothing_is_written(run_dir: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    started.mkdir()
    (started / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    with pytest.raises(RunError, match="no finished model"):
        export_run(started, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        export_run(tmp_path, tmp_path / "out")

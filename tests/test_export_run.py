"""An exported run: a checkpoint that transformers and lm-eval's own command line read, with a model card."""

from __future__ import annotations

import json
import re
from pathlib import Path

import evaluation_toy as toy
import pytest
import torch
from evidence_factory import make_record
from huggingface_hub import ModelCard

from mhc_bench.config import WorldConfig, save_run_config
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation import export_run
from mhc_bench.evidence import write_record
from mhc_bench.model import graft, load_model, save_model, weight_digest
from mhc_bench.suite.card import model_card
from mhc_bench.suite.exporting import export


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
    (folder / "training.json").write_text(json.dumps(toy.TRAINING | {"weight_digest": weight_digest(model)}))
    return folder


def test_the_export_holds_the_same_weights(run_dir: Path, tmp_path: Path) -> None:
    out = export_run(run_dir, tmp_path / "new" / "export", "")
    first, _ = load_model(run_dir / "checkpoints" / "final")
    second, tokenizer = load_model(out)
    for (name, left), (other, right) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(left, right)
    assert tokenizer.encode("w3 .") == toy.tokenizer().encode("w3 .")
    assert [path.name for path in out.parent.iterdir()] == ["export"]


def test_the_card_of_a_run_without_a_record_has_no_number(run_dir: Path, tmp_path: Path) -> None:
    export(run_dir, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "has no record: nothing is claimed" in card.text
    assert card.data.eval_results is None
    assert "12,345" not in str(card)  # what training.json says is no evidence


def test_the_card_says_what_the_record_says(run_dir: Path, tmp_path: Path) -> None:
    record = make_record("mhc", 1)
    write_record(record, run_dir / "record.json")
    try:
        export(run_dir, tmp_path / "out")
    finally:
        (run_dir / "record.json").unlink()
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert record.training is not None and record.evaluation is not None
    for expected in ("nothing about natural language", record.digest, f"{record.training.tokens:,} tokens"):
        assert expected in card.text
    assert f"loss {record.validation_loss:.4f} nats" in card.text
    assert str(run_dir) not in str(card)
    assert card.data.model_name == "toy-mhc-seed0"
    results = {result.dataset_type: result for result in card.data.eval_results or []}
    assert results["world"].metric_value == record.validation_loss
    assert set(results) == {"world", *record.evaluation.tasks}
    task = record.evaluation.tasks["world_bbh"]
    told = results["world_bbh"]
    assert (told.metric_type, told.metric_value) == ("acc", task.value)
    assert told.dataset_args == {"shots": task.shots, "items": task.n, "version": task.version}
    assert f"| {task.value:.3f} | {task.stderr:.3f} |" in card.text


def test_the_cards_command_asks_about_the_world_that_the_run_was_trained_on() -> None:
    config = toy.run_config(tasks=("mhc_world",))
    config.data = WorldConfig(world_seed=5, scale=7)
    (said,) = re.findall(r"--metadata '(.*)'", model_card(config, None))
    assert json.loads(said) == {"world_seed": 5, "scale": 7}


def test_nothing_in_a_name_acts_as_markup_in_the_card() -> None:
    config = toy.run_config()
    config.variant_name = "x|<script>[a](b)"
    config.variant.options = {"note": "*bold* `code` | <img>"}
    record = make_record("mhc", 1)
    hostile = record.model_copy(update={"data": {"source": "a: [b]\n- <i>"}})
    text = model_card(config, hostile)
    card = ModelCard(text)
    assert card.data.model_name == "toy-x|<script>[a](b)-seed0"  # quoted in the YAML
    assert "<script>" not in card.text and "<img>" not in card.text and "<i>" not in card.text
    (row,) = [line for line in card.text.splitlines() if line.startswith("| residual connection")]
    assert re.sub(r"\\\|", "", row).count("|") == 3


def test_a_diverged_run_has_scores_of_nothing() -> None:
    card = ModelCard(model_card(toy.run_config(), make_record("hc", 1, diverged=70)))
    assert card.data.eval_results is None
    assert "has not been evaluated" in card.text and "| validation |" not in card.text


def test_exporting_prints_nothing(run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_run(run_dir, tmp_path / "export", "")
    assert capfd.readouterr() == ("", "")


def test_a_folder_with_something_in_it_is_refused_untouched(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        export_run(run_dir, tmp_path, "")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    export_run(run_dir, out, "")
    assert (out / "config.json").is_file()


def test_an_unfinished_run_is_refused_and_nothing_is_written(run_dir: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    started.mkdir()
    (started / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    with pytest.raises(RunError, match="no finished model"):
        export_run(started, tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        export_run(tmp_path, tmp_path / "out", "")

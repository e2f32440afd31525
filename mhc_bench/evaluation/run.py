"""The evaluation of one run: load its final model, ask the tasks, write what was answered."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import LM
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mhc_bench.config import HardwareConfig, RunConfig, WorldConfig
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation.availability import check_runnable
from mhc_bench.evaluation.baselines import known_baselines
from mhc_bench.evaluation.harness import Outcome, ask, make_lm
from mhc_bench.evaluation.items import write_items
from mhc_bench.evaluation.ranks import Ranks, divided, joined, serve
from mhc_bench.evaluation.scores import json_clean, summarise
from mhc_bench.evaluation.summary import EvaluationSummary, write_evaluation
from mhc_bench.evaluation.tasks import lm_eval_root
from mhc_bench.files import PROGRESS_FILE, write_progress, write_text
from mhc_bench.model import load_model, weight_digest
from mhc_bench.model.quiet import quiet_transformers
from mhc_bench.model.saving import FINAL
from mhc_bench.processor import processor
from mhc_bench.resources import tasks_dir

SAMPLES = "samples"


def evaluate(
    config: RunConfig, run_dir: Path, out: Path | None = None, *, weights: str | None = None
) -> EvaluationSummary:
    """Run lm-eval on `run_dir/checkpoints/final` and write `evaluation.json` and `samples/<task>.jsonl`.

    Collective where several ranks were started (torch.distributed is initialised): each loads the model on
    its own device and answers its share of the requests; the first asks and writes.

    Args:
        config: the run's configuration; `evaluation` and `data` decide what is asked.
        out: where to write; the run's own folder by default.
        weights: `weight_digest` of what the run was trained to, where that is known; each rank compares.

    Raises:
        UsageError: an unknown task, or none, or one whose data or packages are not here; nothing is written.
        RunError: the run has no final model, or it is damaged or another run's.
    """
    began = time.perf_counter()
    if not config.evaluation.tasks:
        raise UsageError(f"suite {config.suite} names no evaluation tasks: give evaluation.tasks=[...]")
    check_runnable(config.evaluation.tasks)
    folder = final_model(run_dir)
    with processor(config.hardware.threads), joined() as ranks:
        own, summary = _load(folder, config, ranks, weights), None
        if ranks.first:
            outcome = _ask(own, config, ranks, _Reporter(run_dir))
            baselines = known_baselines(config, outcome.samples)
            summary = summarise(outcome, baselines, time.perf_counter() - began)
            _write(outcome, summary, run_dir if out is None else out)
        else:
            serve(own, ranks)
        told: EvaluationSummary = ranks.scatter([summary] * ranks.count)
    return told


def _load(folder: Path, config: RunConfig, ranks: Ranks, weights: str | None) -> LM:
    """The final model on this rank's device."""
    model, tokenizer = trained_model(folder, weights)
    placed = _placed(model, config.hardware, ranks)
    return make_lm(placed, tokenizer, config.evaluation.batch_size, config.training.precision)


def trained_model(folder: Path, weights: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A saved model and its tokenizer.

    Args:
        weights: the `weight_digest` that it must have, where that is known.

    Raises:
        RunError: it is missing, damaged or another run's.
    """
    with quiet_transformers():
        model, tokenizer = load_model(folder)
    if weights is not None and weight_digest(model) != weights:
        raise RunError(f"{folder}: its weights are not those of the run")
    return model, tokenizer


def _ask(own: LM, config: RunConfig, ranks: Ranks, reporter: _Reporter) -> Outcome:
    try:
        with divided(own, ranks) as lm:
            return ask(
                lm,
                config.evaluation.tasks,
                metadata=_metadata(config),
                limit=config.evaluation.limit,
                on_progress=reporter,
            )
    finally:
        reporter.close()


def final_model(run_dir: Path) -> Path:
    """The folder of a run's final model.

    Raises:
        RunError: training is not over.
    """
    folder = run_dir / FINAL
    if not (folder / "config.json").is_file():
        raise RunError(f"{run_dir} has no finished model: expected {FINAL}/config.json (train the run first)")
    return folder


def _placed(model: PreTrainedModel, hardware: HardwareConfig, ranks: Ranks) -> PreTrainedModel:
    if hardware.accelerator == "gpu" and torch.cuda.is_available():
        here = int(os.environ.get("LOCAL_RANK", "0")) if ranks.count > 1 else 0
        torch.nn.Module.cuda(model, here % torch.cuda.device_count())
    return model


def _metadata(config: RunConfig) -> dict[str, Any]:
    """What the tasks' loaders must know: a run trained on one world is asked about that world."""
    if not isinstance(config.data, WorldConfig):
        return {}
    return {"world_seed": config.data.world_seed, "scale": config.data.scale}


class _Reporter:
    """Writes `progress.json`, at most once a second."""

    def __init__(self, run_dir: Path) -> None:
        self._folder, self._last = run_dir, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= 1:
            self._last = now
            write_progress(self._folder, {"stage": "evaluate", "step": done, "steps": total, "loss": None})

    def close(self) -> None:
        """What was reported is over."""
        (self._folder / PROGRESS_FILE).unlink(missing_ok=True)


def _write(outcome: Outcome, summary: EvaluationSummary, out: Path) -> None:
    """Samples first, so that a complete evaluation always has them."""
    for name, items in outcome.samples.items():
        lines = (json.dumps(json_clean(item), ensure_ascii=False, sort_keys=True) for item in items)
        write_text(out / SAMPLES / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    write_items(outcome, summary, out)
    results = json_clean(outcome.results)
    for task in results["configs"].values():
        _hide_location(task.get("metadata", {}))
    write_evaluation({**results, "warnings": outcome.warnings}, summary, out)


def _hide_location(metadata: dict[str, Any]) -> None:
    """lm-eval notes the absolute path of a task's file; only its place among the tasks says anything."""
    source = Path(str(metadata.get("config_source", "")))
    for root, name in ((tasks_dir(), ""), (lm_eval_root(), "lm_eval/tasks")):
        if source.is_relative_to(root):
            metadata["config_source"] = (Path(name) / source.relative_to(root)).as_posix()

"""The model card of an exported run: numbers from its record alone, and results that the Hub can read."""

from __future__ import annotations

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from mhc_bench.config import RunConfig
from mhc_bench.evidence import Record
from mhc_bench.evidence.markdown import escape
from mhc_bench.evidence.record import Task

TASK_TYPE = "text-generation"
TAGS = ("mhc-bench", "residual-connections")


def model_card(config: RunConfig, record: Record | None) -> str:
    """The README of an exported model: what it is, what it was trained on, what it scored.

    Args:
        record: None for a run without one: then the card has no number.
    """
    header = metadata(config, record).to_yaml()
    return f"---\n{header}\n---\n\n{_body(config, record)}"


def metadata(config: RunConfig, record: Record | None) -> ModelCardData:
    """The card's YAML: a `model-index` with the validation loss and every score."""
    results = evaluation_results(record) if record else []
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK_TYPE,
        tags=list(TAGS),
        # a name without results is no index
        model_name=f"{config.suite}-{config.variant_name}-seed{config.seed}" if results else None,
        eval_results=results or None,
    )


def evaluation_results(record: Record) -> list[EvalResult]:
    """Every result of a record in the Hub's terms; scores in the metric's own unit."""
    tasks = record.evaluation.tasks if record.evaluation else {}
    scores = [_score(name, task) for name, task in sorted(tasks.items()) if task.value is not None]
    if record.validation_loss is None:
        return scores
    source = record.data.get("source", "unknown")
    loss = EvalResult(
        task_type=TASK_TYPE,
        dataset_type=source,
        dataset_name=source,
        dataset_split="validation",
        metric_type="loss",
        metric_name="validation loss (nats per token)",
        metric_value=record.validation_loss,
    )
    return [loss, *scores]


def _score(name: str, task: Task) -> EvalResult:
    return EvalResult(
        task_type=TASK_TYPE,
        dataset_type=name,
        dataset_name=name,
        dataset_revision=task.revision,
        dataset_args={"shots": task.shots, "items": task.n, "version": task.version},
        metric_type=task.metric.split(",")[0],
        metric_name=task.metric,
        metric_value=task.value,
    )


def _body(config: RunConfig, record: Record | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mhc_bench.suite"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown has escapes of its own
    )
    environment.filters["md"] = lambda value: escape(str(value))
    return environment.get_template("model_card.md.j2").render(config=config, record=record)

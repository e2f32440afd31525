"""From lm-eval's outcome to the summary of a run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from lm_eval.utils import handle_non_serializable

from mhc_bench.evaluation.baselines import Baselines
from mhc_bench.evaluation.harness import Outcome
from mhc_bench.evaluation.summary import EvaluationSummary, SubScore, TaskScore

KIND = "sub"
"""Field of a document that names its kind; tasks whose documents have it get a score per kind."""


def summarise(outcome: Outcome, baselines: Mapping[str, Baselines], seconds: float) -> EvaluationSummary:
    """One score per task. `baselines`: chance and prior of the tasks where they are known."""
    tasks = {name: _score(name, outcome, baselines.get(name, Baselines())) for name in outcome.samples}
    mean = sum(task.value for task in tasks.values()) / len(tasks)
    return EvaluationSummary(tasks=tasks, mean=mean, seconds=seconds)


def _score(name: str, outcome: Outcome, base: Baselines) -> TaskScore:
    results, task = outcome.results, outcome.tasks[name]
    values = results["results"][name]
    key = _main_metric(values)
    metric, _, chosen = key.partition(",")
    items = [item for item in outcome.samples[name] if item["filter"] == chosen]
    stderr = values.get(f"{metric}_stderr,{chosen}")
    return TaskScore(
        value=float(values[key]),
        metric=key,
        stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
        n=len(items),
        shots=int(results["n-shot"][name]),
        version=str(task.VERSION),
        chance=base.chance if base.chance is not None else uniform_chance(task, items),
        prior=base.prior,
        request_hash=request_hash(task.OUTPUT_TYPE, items),
        gold_loglikelihood=_finite_mean(outcome.gold[name]),
        higher_is_better=results["higher_is_better"][name].get(metric, True) is not False,
        subtasks=_subtasks(metric, items, outcome.gold[name], base),
    )


def _main_metric(values: Mapping[str, Any]) -> str:
    """The first metric and filter of the task's file: lm-eval keeps their order."""
    return next(key for key in values if "," in key and "_stderr," not in key)


def uniform_chance(task: Any, items: list[dict[str, Any]]) -> float | None:
    """Expected accuracy of a uniform guess among the choices; None for tasks without choices."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    return sum(1 / len(item["arguments"]) for item in items) / len(items)


def request_hash(kind: str, items: list[dict[str, Any]]) -> str:
    """SHA-256 over the kind of request and all its strings, in order."""
    content = [kind, [item["arguments"] for item in items]]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=handle_non_serializable)
    return hashlib.sha256(text.encode()).hexdigest()


def _subtasks(
    metric: str, items: list[dict[str, Any]], gold: list[float], base: Baselines
) -> dict[str, SubScore]:
    kinds = sorted({str(item["doc"][KIND]) for item in items if item["doc"].get(KIND) is not None})
    return {kind: _subscore(kind, metric, items, gold, base) for kind in kinds}


def _subscore(
    kind: str, metric: str, items: list[dict[str, Any]], gold: list[float], base: Baselines
) -> SubScore:
    chosen = [i for i, item in enumerate(items) if str(item["doc"].get(KIND)) == kind]
    known = base.kinds.get(kind, Baselines())
    return SubScore(
        value=sum(float(items[i][metric]) for i in chosen) / len(chosen),
        n=len(chosen),
        gold_loglikelihood=_finite_mean([gold[i] for i in chosen]) if gold else None,
        chance=known.chance,
        prior=known.prior,
    )


def _finite_mean(values: list[float]) -> float | None:
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def json_clean(value: Any) -> Any:
    """`value` as JSON can hold it: no NaN, no numpy, no objects."""
    if isinstance(value, Mapping):
        return {str(key): json_clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_clean(entry) for entry in value]
    if isinstance(value, (str, int)) or value is None:
        return value
    plain = value if isinstance(value, float) else handle_non_serializable(value)
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else None
    return json_clean(plain)

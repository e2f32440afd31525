"""From lm-eval's outcome to the summary of a run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from lm_eval.utils import handle_non_serializable

from mhc_bench.evaluation.availability import data_revision
from mhc_bench.evaluation.baselines import Baselines
from mhc_bench.evaluation.harness import Outcome
from mhc_bench.evaluation.summary import EvaluationSummary, SubScore, TaskScore

KIND = "sub"
"""Field of a document that names its kind; tasks whose documents have it get a score per kind."""


def summarise(outcome: Outcome, baselines: Mapping[str, Baselines], seconds: float) -> EvaluationSummary:
    """One score per task, and one for each group that is scored as a whole.

    Args:
        baselines: chance and prior of the tasks where they are known.
    """
    single = {name: _score(name, outcome, baselines.get(name, Baselines())) for name in outcome.samples}
    group_of = {name: group for group, names in outcome.groups.items() for name in names}
    tasks: dict[str, TaskScore] = {}
    for name, score in single.items():
        group = group_of.get(name)
        if group is None:
            tasks[name] = score
        elif group not in tasks:
            parts = {each: single[each] for each in outcome.groups[group]}
            tasks[group] = _group_score(group, outcome, parts)
    mean = sum(task.value for task in tasks.values()) / len(tasks)
    return EvaluationSummary(tasks=tasks, mean=mean, seconds=seconds)


def _group_score(group: str, outcome: Outcome, parts: Mapping[str, TaskScore]) -> TaskScore:
    """lm-eval's own aggregate of a group, its tasks as the subtasks."""
    values = outcome.results["results"][group]
    key = next(key for key in values if "," in key and "_stderr," not in key)
    metric, _, chosen = key.partition(",")
    stderr = values.get(f"{metric}_stderr,{chosen}")
    scores = list(parts.values())
    revisions = sorted({score.revision for score in scores if score.revision})
    return TaskScore(
        value=float(values[key]),
        metric=key,
        stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
        n=sum(score.n for score in scores),
        shots=scores[0].shots,
        version=str(outcome.results["versions"][group]),
        chance=_weighted(scores, [score.chance for score in scores]),
        prior=None,
        request_hash=_digest([[name, score.request_hash] for name, score in parts.items()]),
        gold_loglikelihood=_weighted(scores, [score.gold_loglikelihood for score in scores]),
        higher_is_better=scores[0].higher_is_better,
        revision=", ".join(revisions) or None,
        subtasks={name: _part(score) for name, score in parts.items()},
    )


def _weighted(scores: list[TaskScore], values: list[float | None]) -> float | None:
    """Mean over all items; None where it is unknown for a part."""
    known = [(score.n, value) for score, value in zip(scores, values, strict=True) if value is not None]
    if len(known) < len(scores):
        return None
    return sum(n * value for n, value in known) / sum(n for n, _ in known)


def _part(score: TaskScore) -> SubScore:
    return SubScore(score.value, score.n, score.gold_loglikelihood, score.chance, score.prior)


def _score(name: str, outcome: Outcome, base: Baselines) -> TaskScore:
    results, task = outcome.results, outcome.tasks[name]
    values = results["results"][name]
    key = _main_metric(task, values)
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
        revision=data_revision(task.dataset),
        subtasks=_subtasks(metric, items, outcome.gold[name], base),
    )


def _main_metric(task: Any, values: Mapping[str, Any]) -> str:
    """The first metric of the task's file, with its first filter."""
    first = task.config.metric_list[0]["metric"]
    return next(key for key in values if key.startswith(f"{first},"))


def uniform_chance(task: Any, items: list[dict[str, Any]]) -> float | None:
    """Expected accuracy of a uniform guess among the choices; None for tasks without choices."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    return sum(1 / len(item["arguments"]) for item in items) / len(items)


def request_hash(kind: str, items: list[dict[str, Any]]) -> str:
    """SHA-256 over the kind of request and all its strings, in order."""
    return _digest([kind, [item["arguments"] for item in items]])


def _digest(content: list[Any]) -> str:
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

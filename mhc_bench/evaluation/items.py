"""What every single item scored: the file from which anyone can recompute a run's scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mhc_bench.evaluation.harness import Outcome
from mhc_bench.evaluation.scores import KIND
from mhc_bench.evaluation.summary import EvaluationSummary
from mhc_bench.files import write_packed_json

ITEMS_FILE = "items.json.gz"
ITEMS_VERSION = 1


def write_items(outcome: Outcome, summary: EvaluationSummary, out: Path) -> None:
    """Write `items.json.gz`: of each task the items in the order in which they were asked."""
    metrics = {name: score.metric for name, score in summary.tasks.items()}
    group_of = {name: group for group, names in outcome.groups.items() for name in names}
    tasks = {name: _task(name, outcome, metrics[group_of.get(name, name)]) for name in outcome.samples}
    content = {"schema_version": ITEMS_VERSION, "tasks": tasks, "groups": outcome.groups}
    write_packed_json(out / ITEMS_FILE, content)


def _task(name: str, outcome: Outcome, key: str) -> dict[str, Any]:
    metric, _, chosen = key.partition(",")
    items = [item for item in outcome.samples[name] if item["filter"] == chosen]
    kinds = [item["doc"].get(KIND) for item in items]
    return {
        "metric": key,
        "aggregation": _aggregation(outcome.tasks[name], metric),
        "documents": [int(item["doc_id"]) for item in items],
        "values": [_number(item.get(metric)) for item in items],
        "gold": [_number(value) for value in outcome.gold[name]] or None,
        "kinds": None if None in kinds else [str(kind) for kind in kinds],
    }


def _aggregation(task: Any, metric: str) -> str:
    """The name of the function that makes a score out of the items' values."""
    return str(getattr(task.aggregation().get(metric), "__name__", "unknown"))


def _number(value: Any) -> float | None:
    """A score as JSON can hold it; None for one that is no finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None

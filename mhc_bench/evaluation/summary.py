"""What an evaluation proves, as plain values."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mhc_bench.errors import RunError
from mhc_bench.files import write_json

EVALUATION_FILE = "evaluation.json"
SUMMARY = "summary"
"""Key of the summary in the file; the other keys are lm-eval's own."""


@dataclass(frozen=True)
class SubScore:
    """The items of one kind within a task."""

    value: float
    n: int
    gold_loglikelihood: float | None
    chance: float | None
    prior: float | None


@dataclass(frozen=True)
class TaskScore:
    """One task. Scores are fractions from 0 to 1; log-likelihoods are in nats per item."""

    value: float
    metric: str
    """lm-eval's name of the metric, its filter included, such as `acc,none`."""
    stderr: float | None
    n: int
    shots: int
    version: str
    chance: float | None
    """Expected score of a uniform guess; null where nobody has said."""
    prior: float | None
    """Score of the best constant answer; null where nobody has said."""
    request_hash: str
    """SHA-256 over all requests of the task in order: equal for runs that were asked the same."""
    gold_loglikelihood: float | None
    """Mean log-likelihood of the gold answer; null where a log-likelihood is not finite."""
    higher_is_better: bool = True
    revision: str | None = None
    """Commit of the data set, where the hub's cache tells it."""
    subtasks: dict[str, SubScore] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSummary:
    """All tasks of one run."""

    tasks: dict[str, TaskScore]
    mean: float
    """Mean of the tasks' values, each task counted once."""
    seconds: float
    """Wall-clock time of the evaluation, loading of the model included."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in `evaluation.json` under `summary`."""
        return dataclasses.asdict(self)


def write_evaluation(results: dict[str, Any], summary: EvaluationSummary, run_dir: Path) -> None:
    """lm-eval's own results and the summary, in one file: where it stands, the evaluation is complete."""
    write_json(run_dir / EVALUATION_FILE, {**results, SUMMARY: summary.to_json()})


def read_summary(run_dir: Path) -> EvaluationSummary | None:
    """The finished evaluation of a run, or None.

    Raises:
        RunError: the file is damaged.
    """
    path = run_dir / EVALUATION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))[SUMMARY]
        tasks = {name: _task(values) for name, values in content.pop("tasks").items()}
        return EvaluationSummary(tasks=tasks, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error}): remove it and run the evaluation again") from None


def _task(values: dict[str, Any]) -> TaskScore:
    subtasks = {kind: SubScore(**score) for kind, score in values.pop("subtasks").items()}
    return TaskScore(subtasks=subtasks, **values)

"""lm-eval on a trained run, and the run as a transformers checkpoint."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from mhc_bench.evaluation.availability import check_runnable, gap
from mhc_bench.evaluation.summary import EvaluationSummary, SubScore, TaskScore, read_summary
from mhc_bench.evaluation.tasks import check_tasks, group_names, task_names

if TYPE_CHECKING:
    from mhc_bench.evaluation.export import export_run
    from mhc_bench.evaluation.run import evaluate

# both libraries read these once, when they are imported; a value that the user has set stays
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

# loading torch and lm-eval takes seconds, which naming and checking tasks must not cost
_HEAVY = {"evaluate": "mhc_bench.evaluation.run", "export_run": "mhc_bench.evaluation.export"}

__all__ = [
    "EvaluationSummary",
    "SubScore",
    "TaskScore",
    "check_runnable",
    "check_tasks",
    "evaluate",
    "export_run",
    "gap",
    "group_names",
    "read_summary",
    "task_names",
]


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        return getattr(importlib.import_module(_HEAVY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

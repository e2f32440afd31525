"""What stands of a run: read from its folder alone, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mhc_bench.files import PROGRESS_FILE

RECORD_FILE = "record.json"
TRAINING_FILE = "training.json"
EVALUATION_FILE = "evaluation.json"
FAILURE_FILE = "failure.txt"
LOG_FILE = "log.txt"
JOB_FILE = "slurm.json"

REFUSED = "wrong usage: "
"""How the reason begins where a run was refused: that is no result, and has no record."""

Standing = Literal["missing", "partial", "complete", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class RunState:
    """Where a run stands; `detail` is its progress or the line that it failed with.

    `interrupted` is what the suite says of a run that was told to stop; its folder then says `partial`.
    """

    standing: Standing
    detail: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: a diverged run is a result too."""
        return self.standing in ("complete", "diverged")


def read_state(folder: Path) -> RunState:
    """The state of the run in `folder`."""
    record = folder / RECORD_FILE
    if record.exists():
        status = (read_json(record) or {}).get("status")
        return RunState("diverged") if status == "diverged" else RunState("complete")
    failure = folder / FAILURE_FILE
    if failure.exists():
        return RunState("failed", failure.read_text(encoding="utf-8").strip())
    if (folder / TRAINING_FILE).exists():
        return RunState("partial", "trained")
    progress = read_json(folder / PROGRESS_FILE)
    if progress is not None:
        return RunState("partial", f"step {progress.get('step')} of {progress.get('steps')}")
    return RunState("partial") if folder.exists() else RunState("missing")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none (yet)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

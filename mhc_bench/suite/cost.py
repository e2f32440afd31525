"""What a variant's training step costs beside the baseline's: measured once per suite, before its runs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

from mhc_bench.config import RunConfig, run_folder
from mhc_bench.files import write_json
from mhc_bench.suite.state import read_json

STEPS = 24
WARMUP = 4


def cost_file(root: Path, run: RunConfig) -> Path:
    """Where the step times of a run's protocol and hardware are kept."""
    return run_folder(root, run).parents[1] / f"cost-{run.cost_id}.json"


def read_step_time(protocol_folder: Path, run: RunConfig) -> dict[str, Any] | None:
    """The measured step time of a run's variant beside the baseline's, or None: not measured."""
    content = read_json(protocol_folder / f"cost-{run.cost_id}.json") or {}
    found = content.get(run.variant_name)
    return found if isinstance(found, dict) else None

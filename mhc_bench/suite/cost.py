"""What a variant's training step costs beside the baseline's: measured alternately, before a suite's runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from mhc_bench.config import RunConfig, run_folder
from mhc_bench.config.identity import digest
from mhc_bench.files import write_json
from mhc_bench.suite.state import read_json

ROUNDS = 24
WARMUP = 3
SECONDS = 25.0
"""At most about this long for one shape of step."""


def cost_file(root: Path, run: RunConfig) -> Path:
    """Where the step times of a run's protocol and hardware are kept."""
    return run_folder(root, run).parents[1] / f"cost-{run.cost_id}.json"


def read_step_time(protocol_folder: Path, run: RunConfig) -> dict[str, Any] | None:
    """The measured step time of a run's variant beside the baseline's, or None: not measured."""
    content = read_json(protocol_folder / f"cost-{run.cost_id}.json") or {}
    found = content.get(run.variant_name)
    return found if isinstance(found, dict) else None


def measure_missing_costs(runs: list[RunConfig], root: Path, console: Console) -> None:
    """Measure each shape of step that lacks a variant's times; arms with other optimizer values share one.

    All variants of a shape are measured anew where one is missing, since a time means something beside the
    baseline of the same process alone. Times of variants that are not among `runs` stay: each holds the rate
    of the baseline that it was measured beside.

    Left out are runs over several processes, whose steps cannot be taken alternately in one, and shapes
    without a baseline to compare with.
    """
    if any(run.hardware.devices * run.hardware.nodes > 1 for run in runs):
        return
    for group in _by_shape(runs).values():
        if all(read_step_time(run_folder(root, run).parents[1], run) for run in group):
            continue
        if any(run.variant.connection == "baseline" for run in group):
            console.print("Measuring step times, one variant after the other in one process ...")
            times = _measure(list({run.variant_name: run for run in reversed(group)}.values())[::-1])
            for path in sorted({cost_file(root, run) for run in group}):
                write_json(path, {**(read_json(path) or {}), **times})


def _by_shape(runs: Iterable[RunConfig]) -> dict[str, list[RunConfig]]:
    groups: dict[str, list[RunConfig]] = {}
    for run in runs:
        parts = (run.model, run.training, run.hardware, run.data)
        groups.setdefault(digest([dataclasses.asdict(part) for part in parts]), []).append(run)
    return groups


def _measure(runs: list[RunConfig]) -> dict[str, Any]:
    """Variant name -> fields of the record's step time."""
    from mhc_bench.bench import measure_steps

    report = measure_steps(runs, ROUNDS, WARMUP, seconds=SECONDS)
    return {run.variant_name: report.step_time(run.variant_name) for run in runs}

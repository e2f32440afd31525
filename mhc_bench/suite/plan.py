"""What a suite will take: runs, tokens, operations, memory, disk and hours, before a step is made."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from mhc_bench.config import RunConfig, SuiteConfig, run_configs, run_folder
from mhc_bench.suite.cost import read_step_time
from mhc_bench.suite.memory import Communication, DeviceMemory, measure_run
from mhc_bench.suite.preflight import Counts
from mhc_bench.suite.state import read_state

FLOPS_PER_SECOND = {"cpu": 2.5e10, "gpu": 4.0e14}
"""Stated efficiency where nothing was measured: a CPU thread in fp32, a GPU in bf16 (40 % of an H100)."""
CHECKPOINT_BYTES = 12
"""Of each parameter: the weight and two moments, in fp32."""
CHECKPOINT_COPIES = 3
"""Two checkpoints to resume from (weights and optimizer: three numbers each), and the final weights; those
that are kept come on top."""


Footprint = tuple[DeviceMemory | None, Communication | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanRow:
    """All runs of one variant in one arm."""

    arm: str
    variant: str
    protocol_id: str
    runs: int
    missing: int
    tokens_per_run: int
    parameters: dict[str, int]
    flops_per_run: float
    memory: DeviceMemory | None
    """Of one device at the peak of a step, and what it consists of; None: the layers do not run on meta."""
    communication: Communication | None
    """Of one device in one step; None as `memory`."""
    checkpoint_bytes: int
    """One checkpoint to resume from: weights and both moments in fp32."""
    disk_bytes: int
    hours: float
    """Training of all missing runs, one after the other."""
    flops_per_second: float
    """Of all devices together: stated, or what the measured step times amount to."""
    basis: str
    """`measured` step time of this machine, or the `stated` efficiency."""


def plan(suite: SuiteConfig, root: Path, counts: dict[tuple[str, str], Counts]) -> list[PlanRow]:
    """One row per arm and variant."""
    groups: dict[tuple[str, str], list[RunConfig]] = {}
    for run in run_configs(suite):
        groups.setdefault((run.arm, run.variant_name), []).append(run)
    footprints: dict[str, Footprint] = {}
    for key, (first, *_) in groups.items():
        if (shape := _shape(first)) not in footprints:
            footprints[shape] = _footprint(first, counts[key])
    return [_row(runs, root, counts[key], footprints[_shape(runs[0])]) for key, runs in groups.items()]


def _shape(run: RunConfig) -> str:
    """What a run's memory and communication depend on: arms that differ in rates alone are measured once."""
    return repr(
        (run.model, run.data, run.training, run.variant, run.hardware, bool(run.optimizer.balancing_speed))
    )


def _row(runs: list[RunConfig], root: Path, counts: Counts, footprint: Footprint) -> PlanRow:
    first = runs[0]
    tokens = first.training.batch_tokens * first.training.steps
    total = counts.parameters["total"]
    copies = CHECKPOINT_COPIES + len(first.logging.milestones) + first.logging.keep_best
    memory, moved = footprint
    missing = sum(not read_state(run_folder(root, run)).finished for run in runs)
    seconds, basis = _seconds_per_run(first, root, counts)
    return PlanRow(
        arm=first.arm,
        variant=first.variant_name,
        protocol_id=first.protocol_id,
        runs=len(runs),
        missing=missing,
        tokens_per_run=tokens,
        parameters=counts.parameters,
        flops_per_run=float(counts.flops_per_token) * tokens,
        memory=memory,
        communication=moved,
        checkpoint_bytes=total * CHECKPOINT_BYTES,
        disk_bytes=total * CHECKPOINT_BYTES * copies * len(runs),
        hours=seconds * missing / 3600,
        flops_per_second=float(counts.flops_per_token) * tokens / seconds,
        basis=basis,
    )


def _footprint(run: RunConfig, counts: Counts) -> Footprint:
    """Memory and communication; nothing for a variant whose layers fail without data: a plan stops no run."""
    try:
        return measure_run(run, counts)
    except Exception as error:
        log.warning("no memory plan for %s: %s: %s", run.variant_name, type(error).__name__, error)
        return None, None


def _seconds_per_run(run: RunConfig, root: Path, counts: Counts) -> tuple[float, str]:
    measured = read_step_time(run_folder(root, run).parents[1], run)
    if measured is not None:
        return measured["quantiles"]["p50"] * run.training.steps, "measured"
    hardware = run.hardware
    units = hardware.devices * hardware.nodes * (hardware.threads if hardware.accelerator == "cpu" else 1)
    rate = FLOPS_PER_SECOND[hardware.accelerator] * units
    return counts.flops_per_token * run.training.batch_tokens * run.training.steps / rate, "stated"


def to_json(rows: list[PlanRow]) -> dict[str, Any]:
    """The plan as plain values, with its totals."""
    return {
        "rows": [dataclasses.asdict(row) for row in rows],
        "total": {
            "runs": sum(row.runs for row in rows),
            "missing": sum(row.missing for row in rows),
            "tokens": sum(row.tokens_per_run * row.runs for row in rows),
            "flops": sum(row.flops_per_run * row.runs for row in rows),
            "disk_bytes": sum(row.disk_bytes for row in rows),
            "hours": sum(row.hours for row in rows),
        },
    }


def to_table(rows: list[PlanRow]) -> Group:
    """The plan for a terminal: a table for each arm."""
    arms = itertools.groupby(rows, key=lambda row: row.arm)
    return Group(*(_arm_table(arm, list(own)) for arm, own in arms), Padding(_caption(rows), (0, 0, 1, 0)))


def _arm_table(arm: str, rows: list[PlanRow]) -> Table:
    table = Table(title=escape(arm) or None, title_justify="left", box=None, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for heading in ("missing", "tokens", "params", "added", "FLOPs", "memory", "moved", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: PlanRow) -> tuple[str, ...]:
    return (
        row.variant,
        f"{row.missing}/{row.runs}",
        quantity(row.tokens_per_run),
        quantity(row.parameters["total"]),
        quantity(row.parameters["residual"]),
        quantity(row.flops_per_run),
        size(row.memory.peak) if row.memory else "unknown",
        size(row.communication.total) if row.communication else "unknown",
        f"{row.hours * 60:,.1f} min" if row.hours < 2 else f"{row.hours:,.0f} h",
    )


def _caption(rows: list[PlanRow]) -> str:
    checkpointed = max((row.memory.peak_checkpointed for row in rows if row.memory), default=0)
    disk = sum(row.disk_bytes for row in rows)
    protocols = ", ".join(dict.fromkeys(row.protocol_id for row in rows))
    stated = any(row.basis == "stated" for row in rows)
    basis = (
        "at a stated efficiency that leaves out the residual connections' memory traffic"
        if stated
        else "from step times measured on this machine"
    )
    return (
        f"Protocol {protocols}. Tokens and FLOPs are of one run, memory and moved bytes (per step) of one "
        f"device; with recompute=layer at most {size(checkpointed)}. Checkpoints take {size(disk)} of disk. "
        f"Times: training alone, the missing runs one after the other, {basis}."
    )


def size(count: float) -> str:
    """A number of bytes with its unit."""
    power = min(4, int(math.log(max(count, 1), 1024)))
    value = count / 1024**power
    return f"{value:,.{0 if value >= 100 or not power else 1}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def quantity(value: float) -> str:
    """A large number with its unit prefix: 1.23M."""
    for limit, unit in (
        (1e21, "Z"),
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"

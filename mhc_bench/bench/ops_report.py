"""`mhc-bench bench ops` as data and as text."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mhc_bench.bench.ops import REFERENCE, Cell, OpsGrid, measure_problem, problems, resolved
from mhc_bench.bench.origin import Origin, origin_of
from mhc_bench.bench.table import table
from mhc_bench.processor import processor

WIDTH = 110
"""Of lines that are wrapped."""

SCHEMA = "mhc-bench/ops/1"
PER_DIRECTION = ("ms", "floor", "GB/s", "of copy", "x ref")


@dataclass(frozen=True)
class OpsReport:
    """All cells of one grid on this machine."""

    grid: OpsGrid
    rounds: int
    cells: list[Cell]
    origin: Origin

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        cells = [
            {**dataclasses.asdict(cell), "bytes_per_second": cell.bytes_per_second} for cell in self.cells
        ]
        return {"schema": SCHEMA, **dataclasses.asdict(self), "cells": cells}

    def to_text(self) -> str:
        """A table for each operation."""
        groups = itertools.groupby(
            sorted(self.cells, key=lambda cell: (self.grid.operations.index(cell.operation), cell.variant)),
            key=lambda cell: (cell.operation, cell.variant),
        )
        tables = [_table(operation, variant, list(cells)) for (operation, variant), cells in groups]
        return "\n\n".join([self._title(), *tables, *_missing(self.cells)])

    def _title(self) -> str:
        where = self.origin.gpu or f"{self.grid.threads} CPU thread{'s' if self.grid.threads > 1 else ''}"
        return (
            f"Operations on {where}, up to {self.rounds} rounds in turn, caches cold; forward,\n"
            "then backward. ms: median. floor: a copy of the bytes that the I/O model counts, in the same\n"
            "rounds; of copy: its time over ours. x ref: time over the reference's. 95 % intervals: JSON."
        )


def run_bench_ops(
    grid: OpsGrid, rounds: int, command: str = "", progress: Callable[[str], None] = lambda line: None
) -> OpsReport:
    """Measure a grid.

    Args:
        rounds: of each operation at each size.
        command: what was typed.
        progress: gets a line with the plan, and one before each operation.

    Raises:
        UsageError: an unknown name, a size below 1, or a GPU that is not there.
    """
    full = resolved(grid)
    origin = origin_of(command, torch.device("cuda" if full.device == "gpu" else "cpu"))
    cells: list[Cell] = []
    asked = list(problems(full))
    minutes = len(asked) * full.seconds / 60
    progress(f"{len(asked)} operations and sizes on the {full.device}, about {minutes:.0f} min at most")
    with processor(full.threads):
        for place, problem in enumerate(asked, start=1):
            name = f"{problem.variant} {problem.operation}".strip()
            size = f"{problem.tokens} tokens, C {problem.width}, n {problem.streams}"
            progress(f"[{place}/{len(asked)}] {name}: {size}")
            cells += measure_problem(problem, full.implementations, rounds, full.seconds)
    return OpsReport(full, rounds, cells, origin)


def _table(operation: str, variant: str, cells: list[Cell]) -> str:
    units = {cell.direction: cell.units for cell in cells if cell.streams == cells[0].streams}
    name = f"{operation} ({variant})" if variant else operation
    title = f"{name}: {units['forward']} and {units['backward']} units of C"
    if len({cell.streams for cell in cells}) > 1:
        title += f" at n = {cells[0].streams}"
    head = ["tokens, C, n, dtype", "implementation", *PER_DIRECTION, *PER_DIRECTION]
    rows = []
    for forward, backward in _pairs(cells):
        size = f"{forward.tokens}, {forward.width}, {forward.streams}, {forward.dtype}"
        rows.append([size, forward.implementation, *_figures(forward), *_figures(backward)])
    return f"{title}\n{table(head, rows)}"


def _pairs(cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Forward and backward of each implementation that was measured."""
    measured = [cell for cell in cells if not cell.not_measured]
    return list(zip(measured[::2], measured[1::2], strict=True))


def _figures(cell: Cell) -> list[str]:
    assert cell.seconds is not None and cell.copy_fraction is not None
    assert cell.floor_seconds is not None and cell.bytes_per_second is not None
    ratio = cell.ratios.get(REFERENCE)
    return [
        f"{1e3 * cell.seconds.median:.3f}",
        f"{1e3 * cell.floor_seconds:.3f}",
        f"{cell.bytes_per_second / 1e9:.1f}",
        f"{100 * cell.copy_fraction.median:.0f} %",
        f"{ratio.median:.2f}" if ratio else "-",
    ]


def _missing(cells: list[Cell]) -> list[str]:
    """What was not measured, and why, once for each reason."""
    found: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        if cell.not_measured:
            name = f"{cell.variant} {cell.operation}".strip()
            found.setdefault((cell.implementation, cell.not_measured), set()).add(name)
    lines = [
        f"not measured: {implementation} ({', '.join(sorted(names))}): {reason}"
        for (implementation, reason), names in found.items()
    ]
    wrapped = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines]
    return ["\n".join(wrapped)] if wrapped else []

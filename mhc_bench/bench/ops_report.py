"""`mhc-bench bench ops` as data and as text."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mhc_bench.bench.ops import COMPILED, REFERENCE, Cell, OpsGrid, measure_problem, problems, resolved
from mhc_bench.bench.origin import Origin, origin_of
from mhc_bench.bench.peers import PEERS
from mhc_bench.bench.table import table
from mhc_bench.processor import processor

WIDTH = 110
"""Of lines that are wrapped."""

SCHEMA = "mhc-bench/ops/1"
FIGURES = ("MB", "ms", "floor", "GB/s", "% of copy")
OTHERS = (REFERENCE, COMPILED, *PEERS)
"""What every implementation is held against, where it was measured."""


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
        """A table for each operation at each size."""
        order = sorted(
            self.cells, key=lambda cell: (self.grid.operations.index(cell.operation), cell.variant)
        )
        tables = [_table(heading, list(cells)) for heading, cells in itertools.groupby(order, key=_heading)]
        return "\n\n".join([self._title(), *filter(None, tables), *_missing(self.cells)])

    def _title(self) -> str:
        where = self.origin.gpu or f"{self.grid.threads} CPU thread{'s' if self.grid.threads > 1 else ''}"
        return (
            f"Operations on {where}, up to {self.rounds} rounds in turn, caches cold; forward /\n"
            "backward. MB: what the I/O model counts. ms: median. floor: a copy of as many bytes, in the\n"
            "same rounds; % of copy: its time over ours. x: time over that one's. 95 % intervals: JSON."
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


def _heading(cell: Cell) -> str:
    name = f"{cell.operation} ({cell.variant})" if cell.variant else cell.operation
    return f"{name}: {cell.tokens} tokens, C {cell.width}, n {cell.streams}, {cell.dtype}"


def _table(heading: str, cells: list[Cell]) -> str:
    """Empty where nothing was measured."""
    pairs = _pairs(cells)
    if not pairs:
        return ""
    others = [name for name in OTHERS if any(forward.implementation == name for forward, _ in pairs)]
    rows = [
        [
            forward.implementation,
            *map("/".join, zip(_figures(forward, others), _figures(backward, others), strict=True)),
        ]
        for forward, backward in pairs
    ]
    units = "/".join(str(cell.units) for cell in pairs[0])
    head = ["implementation", *FIGURES, *(f"x {name}" for name in others)]
    return f"{heading}; {units} units of C\n{table(head, rows)}"


def _pairs(cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Forward and backward of each implementation that was measured."""
    measured = [cell for cell in cells if not cell.not_measured]
    return list(zip(measured[::2], measured[1::2], strict=True))


def _figures(cell: Cell, others: list[str]) -> list[str]:
    assert cell.seconds is not None and cell.copy_fraction is not None
    assert cell.floor_seconds is not None and cell.bytes_per_second is not None
    ratios = [cell.ratios.get(name) for name in others]
    return [
        f"{cell.bytes / 1e6:.1f}",
        f"{1e3 * cell.seconds.median:.3g}",
        f"{1e3 * cell.floor_seconds:.3g}",
        f"{cell.bytes_per_second / 1e9:.1f}",
        f"{100 * cell.copy_fraction.median:.0f}",
        *(f"{ratio.median:.2f}" if ratio else "-" for ratio in ratios),
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

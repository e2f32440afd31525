"""The verb `bench`: measure, print, and write what was asked for."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mhc_bench.config import load_suite, run_configs
from mhc_bench.config.load import parse_overrides
from mhc_bench.config.typed import typed
from mhc_bench.errors import UsageError
from mhc_bench.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure


class Report(Protocol):
    """What a bench hands back."""

    def to_json(self) -> dict[str, Any]:
        """The figures, as they are kept."""
        ...

    def to_text(self) -> str:
        """Tables for a terminal."""
        ...


@dataclass(frozen=True)
class Output:
    """Where a bench's figures go besides the terminal."""

    json: bool
    """Print JSON instead of tables."""
    out: Path | None
    figure: Path | None

    def check(self) -> None:
        """Refuse what cannot be written before anything is measured.

        Raises:
            UsageError: the figure's format is unknown, or a name is a folder's.
        """
        from mhc_bench.bench.figures import check_figure

        if self.figure is not None:
            check_figure(self.figure)
        for path in (self.out, self.figure):
            if path is not None and path.is_dir():
                raise UsageError(f"{path} is a folder: expected the name of a file")

    def deliver(self, report: Report, draw: Callable[[], Figure]) -> None:
        """Print `report`, and write its JSON and its figure where they were asked for."""
        from mhc_bench.bench.figures import write_figure

        content = report.to_json()
        print(json.dumps(content, indent=1, allow_nan=False) if self.json else report.to_text())
        if self.out is not None:
            write_json(self.out, content)
        if self.figure is not None:
            write_figure(draw, self.figure)


def bench_step(name: str, overrides: list[str], steps: int, output: Output) -> int:
    """Step times of a suite's variants and of a hand-written loop, memory, and floors."""
    from functools import partial

    from mhc_bench.bench import run_bench_step
    from mhc_bench.bench.figures import draw_steps

    _check_steps(steps)
    suite = load_suite(name, overrides)
    output.check()
    first = run_configs(suite)[: len(suite.variants)]
    command = shlex.join(["mhc-bench", "bench", "step", name, *overrides, "--steps", str(steps)])
    report = run_bench_step(first, steps, command=command, say=_say)
    output.deliver(report, partial(draw_steps, report))
    return 0


def bench_ops(overrides: list[str], rounds: int, output: Output) -> int:
    """Times of the operations, by implementation."""
    from functools import partial

    from mhc_bench.bench.figures import draw_ops
    from mhc_bench.bench.ops import OpsGrid
    from mhc_bench.bench.ops_report import run_bench_ops

    _check_steps(rounds)
    grid = typed(OpsGrid, parse_overrides(overrides), "bench ops")
    output.check()
    command = shlex.join(["mhc-bench", "bench", "ops", *overrides, "--steps", str(rounds)])
    report = run_bench_ops(grid, rounds, command, _say)
    output.deliver(report, partial(draw_ops, report))
    return 0


def bench_collate(overrides: list[str], output: Output) -> int:
    """Seconds from many synthetic records to tables."""
    from mhc_bench.bench.collation import CollationGrid, run_bench_collate

    grid = typed(CollationGrid, parse_overrides(overrides), "bench collate")
    output.check()
    if output.figure is not None:
        raise UsageError("bench collate draws no figure: leave out --figure")
    report = run_bench_collate(grid, shlex.join(["mhc-bench", "bench", "collate", *overrides]))
    print(json.dumps(report.to_json(), indent=1) if output.json else report.to_text())
    if output.out is not None:
        write_json(output.out, report.to_json())
    return 0


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UsageError(f"--steps {steps}: expected at least 1")


def _say(line: str) -> None:
    """Progress, where someone watches."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)

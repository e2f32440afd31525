"""The benches' figures, in the style of the leaderboard's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, ScalarFormatter

from mhc_bench.bench.activations import RECOMPUTE, KeptActivations
from mhc_bench.bench.ops import Cell
from mhc_bench.bench.ops_report import OpsReport
from mhc_bench.bench.report import PAPER_OVERHEAD, BenchStepReport
from mhc_bench.bench.step import StepReport
from mhc_bench.bench.traffic import DIRECTIONS, LEVELS
from mhc_bench.errors import UsageError
from mhc_bench.evidence.figures import SETTINGS, PlainLog, styles
from mhc_bench.files import atomic_path

SUFFIXES = (".png", ".svg", ".pdf")
MARKERS = {"unfused": "v", "fused": "s", "joined": "D", "resident": "o"}
HOLLOW: Any = {"markerfacecolor": "none", "markersize": 6}
OWN = {"reference": "#222222", "eager": "#0072B2", "compiled": "#009E73", "triton": "#D55E00"}
OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#999999", "#7A5195", "#882255")


def check_figure(path: Path) -> None:
    """Refuse a figure's file name before anything is measured.

    Raises:
        UsageError: its suffix is none that can be drawn.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"figure {path}: expected a name that ends in one of {', '.join(SUFFIXES)}")


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw into `path`, whole or not at all."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's own style must not change the figure
        matplotlib.rcParams.update(SETTINGS)
        with atomic_path(path) as temporary:
            draw().savefig(temporary, format=path.suffix[1:])


def draw_steps(report: BenchStepReport) -> Figure:
    """Left the overhead of each variant with its floors, right what the residual path keeps per sublayer."""
    figure = Figure(figsize=(9.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.set_axisbelow(True)
    right.set_axisbelow(True)
    _overheads(left, report.steps)
    _kept(right, report.activations)
    return figure


def _overheads(axes: Axes, steps: StepReport) -> None:
    others = [each for each in steps.variants if each.variant != steps.baseline]
    look = styles(tuple(each.variant for each in steps.variants))
    for place, each in enumerate(others):
        ratio = each.ratio
        spread = [[100 * (ratio.median - ratio.low)], [100 * (ratio.high - ratio.median)]]
        axes.bar(place, 100 * (ratio.median - 1), width=0.5, color=look[each.variant][0], alpha=0.75)
        axes.errorbar(place, 100 * (ratio.median - 1), yerr=spread, color="#222222", capsize=4, linewidth=1.2)
        for level, share in each.floor_overhead.items():
            axes.plot(place + 0.36, 100 * share, marker=MARKERS[level], color="#222222", **HOLLOW)
    if steps.gpu:
        axes.axhline(100 * PAPER_OVERHEAD, color="#CC79A7", linestyle="--", linewidth=1.2)
    axes.set_xticks(range(len(others)), [each.variant for each in others])
    axes.set_xlim(-0.6, len(others) - 0.3)
    axes.set_ylabel(f"Overhead over {steps.baseline} (%)")
    axes.set_title(_measured(steps), fontsize=9)
    _legend_below(axes, _floor_legend(bool(steps.gpu)))


def _measured(steps: StepReport) -> str:
    layers = "compiled" if steps.compile else "eager"
    what = f"{steps.suite} ({steps.protocol_id}), {steps.tokens_per_step} tokens"
    return f"{what}, {steps.gpu or 'CPU'}, {steps.precision}, {layers}"


def _floor_legend(paper: bool) -> list[Line2D]:
    floors = [
        Line2D(
            [],
            [],
            color="#222222",
            marker=MARKERS[level],
            linestyle="none",
            **HOLLOW,
            label=f"traffic, {level}",
        )
        for level in LEVELS
    ]
    line = Line2D([], [], color="#CC79A7", linestyle="--", label="the paper's 6.7 % (mHC)")
    return [*floors, line] if paper else floors


def _kept(axes: Axes, kept: Sequence[KeptActivations]) -> None:
    variants = list(dict.fromkeys(each.variant for each in kept))
    look, width = styles(tuple(variants)), 0.8 / len(variants)
    for each in kept:
        place = RECOMPUTE.index(each.recompute) + (variants.index(each.variant) + 0.5) * width - 0.4
        if not each.not_measured:
            axes.bar(place, each.path_units, width=0.9 * width, color=look[each.variant][0], alpha=0.75)
        axes.plot(
            [place - width / 2, place + width / 2], 2 * [each.formula_units], color="#222222", linewidth=2
        )
    axes.set_xticks(range(len(RECOMPUTE)), RECOMPUTE)
    axes.set_xlabel("Recomputed")
    axes.set_ylabel("Kept by the residual path (C per sublayer)")
    handles = [Line2D([], [], color=look[name][0], linewidth=6, alpha=0.75, label=name) for name in variants]
    handles.append(Line2D([], [], color="#222222", linewidth=2, label="the paper's count"))
    _legend_below(axes, handles)


def _legend_below(axes: Axes, handles: list[Line2D]) -> None:
    """Under the axis, where no bar and no point lies."""
    axes.legend(
        handles=handles, frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16)
    )


def draw_ops(report: OpsReport) -> Figure:
    """A row for each operation, forward and backward: the achieved share of copy bandwidth over C.

    For the first n and dtype and the largest number of tokens of the grid.
    """
    grid = report.grid
    shown = [
        cell
        for cell in report.cells
        if (cell.streams, cell.dtype, cell.tokens) == (grid.streams[0], grid.dtypes[0], max(grid.tokens))
        and cell.copy_fraction is not None
    ]
    rows = list(dict.fromkeys((cell.operation, cell.variant) for cell in shown))
    figure = Figure(figsize=(8.6, 1.0 + 1.7 * max(len(rows), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(cell.implementation for cell in shown))
    look = dict(zip((name for name in names if name not in OWN), OTHERS, strict=False)) | OWN
    grid_of_axes = figure.subplots(max(len(rows), 1), 2, squeeze=False, sharex=True, sharey=True)
    for (row, column), axes in np.ndenumerate(grid_of_axes):
        cells = [cell for cell in shown if (cell.operation, cell.variant) == rows[row]] if rows else []
        _shares(axes, [cell for cell in cells if cell.direction == DIRECTIONS[column]], look)
        if cells:
            name = f"{cells[0].operation} {f'({cells[0].variant}) ' if cells[0].variant else ''}"
            axes.set_title(f"{name}{DIRECTIONS[column]}", fontsize=9)
    shares = [100 * cell.copy_fraction.low for cell in shown if cell.copy_fraction]
    _logarithmic(grid_of_axes[0, 0], min([10, *shares]) / 1.5, 200)
    figure.supxlabel(f"C ({max(grid.tokens)} tokens, n = {grid.streams[0]}, {grid.dtypes[0]})", fontsize=9)
    figure.supylabel("Share of copy bandwidth (%)", fontsize=9)
    handles = [Line2D([], [], color=look[name], marker="o", markersize=4, label=name) for name in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _shares(axes: Axes, cells: Sequence[Cell], look: dict[str, str]) -> None:
    axes.axhline(100, color="#999999", linewidth=0.8)
    for name in dict.fromkeys(cell.implementation for cell in cells):
        own = sorted((cell for cell in cells if cell.implementation == name), key=lambda cell: cell.width)
        found = [cell.copy_fraction for cell in own if cell.copy_fraction is not None]
        widths, low, high = [cell.width for cell in own], [f.low for f in found], [f.high for f in found]
        axes.fill_between(widths, np.multiply(100, low), np.multiply(100, high), color=look[name], alpha=0.15)
        axes.plot(widths, [100 * f.median for f in found], color=look[name], marker="o", markersize=3.5)
    if cells:
        axes.set_xscale("log")
        axes.set_xticks(sorted({cell.width for cell in cells}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(PlainLog())
    axes.yaxis.set_minor_formatter(PlainLog(labelOnlyBase=False))

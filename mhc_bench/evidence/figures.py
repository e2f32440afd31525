"""The figures: loss, composite gain and gradient norm over training. Equal records give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext

from mhc_bench.evidence.bands import band_of_curve, curve_ends
from mhc_bench.evidence.collate import Arm, Board, Row
from mhc_bench.evidence.record import GAIN_BACKWARD, GAIN_FORWARD, GRADIENT_NORM, LOSS
from mhc_bench.files import atomic_path

OWN_STYLE = {"baseline": ("#222222", "-"), "hc": ("#D55E00", "--"), "mhc": ("#0072B2", "-.")}
"""Colours that colour-blind readers can tell apart (Okabe and Ito), and a dash pattern as a second sign."""
OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#7B3294", "#B2182B", "#5AAE61")
OTHER_DASHES: tuple[tuple[int, tuple[int, ...]], ...] = ((0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MOST_ABOVE = 10
"""Variants whose names fit above a figure; more stand beside it, and the figure is higher."""
SETTINGS: Any = {
    "svg.hashsalt": "mhc-bench",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 160,
}

Style = tuple[str, Any]
"""Colour and matplotlib's line style: a name, or an offset with a dash pattern."""


class PlainLog(LogFormatterMathtext):
    """Ticks of a logarithmic axis: 0.5, 2, 100; powers of ten only beyond 10 000 and below 0.001."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        text = super().__call__(x, pos)
        return f"{x:g}" if text and 1e-3 <= x <= 1e4 else text


@dataclass(frozen=True)
class Panel:
    """One row of panels: a curve of the records, over training."""

    curve: str
    label: str
    log: bool
    framed_from: float = 0.0
    """The share of training after which all values lie inside the frame; earlier ones may leave it."""


@dataclass(frozen=True)
class FigurePlan:
    """A figure: its file name, what it shows in words, and its rows of panels."""

    name: str
    alt: str
    panels: tuple[Panel, ...]


PLANS = (
    FigurePlan(
        "loss",
        "Training loss over steps: mean over seeds, band from the lowest to the highest seed; the frame is "
        "that of the last nine tenths",
        (Panel(LOSS, "Training loss (nats/token)", False, framed_from=0.1),),
    ),
    FigurePlan(
        "gain",
        "Composite gain of the residual maps over steps, forward and backward, logarithmic: geometric mean "
        "over seeds, band from the lowest to the highest seed",
        (
            Panel(GAIN_FORWARD, "Forward composite gain (Amax)", True),
            Panel(GAIN_BACKWARD, "Backward composite gain (Amax)", True),
        ),
    ),
    FigurePlan(
        "gradient_norm",
        "Gradient norm before clipping over steps, logarithmic: geometric mean over seeds, band from the "
        "lowest to the highest seed",
        (Panel(GRADIENT_NORM, "Gradient norm before clipping", True),),
    ),
)


def planned(board: Board) -> list[FigurePlan]:
    """The figures for which the records hold at least one curve."""
    records = [record for arm in board.arms for record in arm.records]
    return [
        plan
        for plan in PLANS
        if any(record.curve(panel.curve) for panel in plan.panels for record in records)
    ]


def styles(variants: tuple[str, ...]) -> dict[str, Style]:
    """A colour and a dash pattern for each variant; those of baseline, hc and mhc never change."""
    others = [name for name in variants if name not in OWN_STYLE]
    chosen: dict[str, Style] = dict(OWN_STYLE)
    for index, name in enumerate(others):
        dashes = OTHER_DASHES[index // len(OTHER_COLOURS) % len(OTHER_DASHES)]
        chosen[name] = (OTHER_COLOURS[index % len(OTHER_COLOURS)], dashes)
    return chosen


def write_figures(board: Board, out: Path) -> list[Path]:
    """Draw all planned figures as PNG and SVG into `out`.

    Returns:
        The files written.
    """
    written = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's own style must not change the bytes
        matplotlib.rcParams.update(SETTINGS)
        for plan in planned(board):
            figure = draw(board, plan)
            for suffix in ("png", "svg"):
                path = out / f"{plan.name}.{suffix}"
                with atomic_path(path) as temporary:
                    temporary.write_bytes(_bytes(figure, suffix))
                written.append(path)
    return written


def _bytes(figure: Figure, suffix: str) -> bytes:
    # No date and no program version in the file: the same records must give the same bytes.
    metadata: dict[str, str | None] = {"Date": None} if suffix == "svg" else {"Software": None}
    content = io.BytesIO()
    figure.savefig(content, format=suffix, metadata=metadata)
    return content.getvalue()


def draw(board: Board, plan: FigurePlan) -> Figure:
    """A figure: one column per arm, one row per panel of the plan."""
    columns, rows = len(board.arms), len(plan.panels)
    crowded = len(board.variants) > MOST_ABOVE
    width = (6.4 if columns == 1 else 3.4 * columns + 0.4) + (2.4 if crowded else 0)
    figure = Figure(figsize=(width, (4.6 if crowded else 2.9) * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey="row", sharex="col")
    look = styles(board.variants)
    for (row, column), axes in np.ndenumerate(grid):
        _panel(axes, board.arms[column], plan.panels[row], look)
        if column == 0:
            axes.set_ylabel(plan.panels[row].label)
        if row == rows - 1:
            axes.set_xlabel("Step")
        if row == 0:
            axes.set_title(_title(board, board.arms[column]), fontsize=9)
    for panel, axes in zip(plan.panels, grid[:, 0], strict=True):
        if (frame := _frame(board, panel)) is not None:
            axes.set_ylim(*frame)  # shared by the row
    names = _legend(board, look)
    if crowded:
        figure.legend(handles=names, loc="outside right upper", frameon=False)
    else:
        figure.legend(handles=names, loc="outside upper center", ncols=5, frameon=False)
    _settle(figure)
    return figure


def _settle(figure: Figure) -> None:
    """Fix the layout to places that the last bit of a processor's logarithms does not move."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(float(each), 6) for each in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


def _frame(board: Board, panel: Panel) -> tuple[float, float] | None:
    """The range of the values after the panel's share of training, with a margin; None to show all."""
    curves = [curve for arm in board.arms for record in arm.records if (curve := record.curve(panel.curve))]
    late = [
        value
        for curve in curves
        for step, value in zip(curve.steps, curve.values, strict=True)
        if value is not None and step >= panel.framed_from * curve.steps[-1]
    ]
    if not late or not panel.framed_from:
        return None
    margin = 0.05 * (max(late) - min(late)) or 0.05
    return min(late) - margin, max(late) + margin


def _legend(board: Board, look: Mapping[str, Style]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=look[name][0], linestyle=look[name][1], linewidth=1.7, label=name)
        for name in board.variants
    ]
    if any(row.diverged for arm in board.arms for row in arm.rows):
        handles.append(Line2D([], [], color="#666666", linestyle="none", marker="x", label="run diverged"))
    return handles


def _title(board: Board, arm: Arm) -> str:
    seeds = len(arm.seeds)
    return f"{arm.name or board.suite} ({seeds} seed{'s' if seeds > 1 else ''})"


def _panel(axes: Axes, arm: Arm, panel: Panel, look: Mapping[str, Style]) -> None:
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PlainLog())
        axes.yaxis.set_minor_formatter(PlainLog(labelOnlyBase=False))
    for row in arm.rows:
        _draw_row(axes, row, panel, look[row.variant])


def _draw_row(axes: Axes, row: Row, panel: Panel, style: Style) -> None:
    colour, dashes = style
    band = band_of_curve(row, panel.curve, log=panel.log)
    if band is None:
        return
    axes.fill_between(band.places, band.low, band.high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(band.places, band.middle, color=colour, linestyle=dashes, linewidth=1.7)
    if row.diverged:  # the mean ends with the first run that ends; each seed's own line goes on
        axes.plot(band.places, band.values.T, color=colour, linewidth=0.7, alpha=0.7)
    for ended in curve_ends(row, panel.curve, log=panel.log):
        axes.plot(*ended, marker="x", color=colour, markersize=7, markeredgewidth=1.8, clip_on=False)

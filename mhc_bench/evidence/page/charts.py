"""Charts of the page as SVG: lines with bands, bars with intervals, matrices as heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mhc_bench.evidence.bands import Band
from mhc_bench.evidence.depth import Matrix
from mhc_bench.evidence.page.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    Scale,
    axes,
    element,
    joined,
    path_of,
    picture,
    spanning,
    unbroken,
)
from mhc_bench.evidence.text import magnitude

CELL = 28
GAP = 14
MOST_NUMBERED = 6
"""Streams up to which a heat map's cells say their value."""


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    look: int
    """Which of the page's colours and dashes."""
    band: Band
    ends: Sequence[tuple[int, float]] = ()
    """Where runs diverged."""


def dashes(look: int) -> str:
    """A second sign besides the colour."""
    return ("none", "7 3", "8 3 2 3", "2 3", "12 4")[look % 5]


def line_chart(
    series: Sequence[Series],
    up_label: str,
    *,
    log: bool = False,
    across: str = "Step",
    framed_from: float = 0.0,
) -> Markup | None:
    """Means with bands from the lowest to the highest seed; None where there is nothing to draw.

    Args:
        framed_from: the share of the places after which all values lie inside the frame.
    """
    found = [value for each in series for value in _framed(each.band, framed_from)]
    if not found:
        return None
    places = [int(each.band.places[index]) for each in series for index in (0, -1)]
    low, high = min(places), max(places)
    over = Scale(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)
    up = spanning(found, HEIGHT - BOTTOM, TOP, log=log)
    drawn = [part for each in series for part in _drawn(each, over, up)]
    label = f"{up_label} by {across.lower()}. " + " ".join(map(_told, series))
    return picture(joined([axes(over, up, across, up_label), *drawn]), label)


def _framed(band: Band, share: float) -> list[float]:
    late = band.places >= share * band.places[-1]
    values = np.concatenate([band.low[late], band.high[late]])
    return [float(value) for value in values[np.isfinite(values)]]


def _drawn(series: Series, over: Scale, up: Scale) -> list[Markup]:
    band = series.band
    middle, low, high = (_points(band.places, line, over, up) for line in (band.middle, band.low, band.high))
    parts = [
        element("path", class_=f"band c{series.look}", d=path_of([[*above, *reversed(below)]]) + "Z")
        for above, below in zip(unbroken(high), unbroken(low), strict=True)
    ]
    line = path_of(unbroken(middle))
    if line:
        parts.append(
            element("path", class_=f"line c{series.look}", d=line, stroke_dasharray=dashes(series.look))
        )
    if series.ends:
        each = path_of(
            [run for seed in band.values for run in unbroken(_points(band.places, seed, over, up))]
        )
        parts.append(element("path", class_=f"thin c{series.look}", d=each))
    for place, value in series.ends:
        x, y = over(place), _inside(up(value))
        parts.append(element("path", class_=f"line c{series.look}", d=path_of(_cross(x, y))))
    return parts


def _cross(x: float, y: float) -> list[list[Point]]:
    return [[(x - 4, y - 4), (x + 4, y + 4)], [(x - 4, y + 4), (x + 4, y - 4)]]


def _points(places: np.ndarray, values: np.ndarray, over: Scale, up: Scale) -> list[Point]:
    return [
        (over(float(place)), _inside(up(float(value))) if math.isfinite(value) else math.nan)
        for place, value in zip(places, values, strict=True)
    ]


def _inside(y: float) -> float:
    """What leaves the frame runs along its edge."""
    return min(max(y, TOP), HEIGHT - BOTTOM)


def _told(series: Series) -> str:
    """A line in words: where its mean ends, and between which seeds."""
    known = np.flatnonzero(np.isfinite(series.band.low))
    if not len(known):
        return f"{series.name}: no finite value."
    last = known[-1]
    low, mean, high = (float(line[last]) for line in (series.band.low, series.band.middle, series.band.high))
    ended = f"; diverged at {', '.join(str(step) for step, _ in series.ends)}" if series.ends else ""
    middle = f"mean {magnitude(mean)}, " if math.isfinite(mean) else ""
    return (
        f"{series.name} at {int(series.band.places[last])}: {middle}seeds from {magnitude(low)} to "
        f"{magnitude(high)}{ended}."
    )


@dataclass(frozen=True)
class Bar:
    """A task's score in per cent: mean over seeds, its interval, and what a guess would score."""

    name: str
    value: float
    low: float | None
    high: float | None
    chance: float | None


def bar_chart(bars: Sequence[Bar], look: int) -> Markup:
    """Horizontal bars from 0 to 100 per cent."""
    row, left, width = 24, 110, WIDTH
    over = Scale(0.0, 100.0, left, width - 40)
    height = row * len(bars) + 34
    parts = []
    for value in (0, 25, 50, 75, 100):
        x = over(value)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=6, y2=height - 24))
        parts.append(element("text", str(value), x=x, y=height - 8, text_anchor="middle"))
    for index, each in enumerate(bars):
        parts.extend(_bar(each, look, over, 8 + row * index, left))
    label = "Score in per cent by task. " + " ".join(map(_told_bar, bars))
    return picture(joined(parts), label, width, height)


def _bar(bar: Bar, look: int, over: Scale, y: float, left: float) -> list[Markup]:
    value = min(max(bar.value, 0.0), 100.0)
    parts = [
        element("text", bar.name, x=left - 6, y=y + 12, text_anchor="end"),
        element("rect", class_=f"bar c{look}", x=left, y=y + 2, width=over(value) - left, height=13),
        element("text", f"{bar.value:.1f}", x=WIDTH - 4, y=y + 12, text_anchor="end"),
    ]
    if bar.low is not None and bar.high is not None:
        low, high = (over(min(max(each, 0.0), 100.0)) for each in (bar.low, bar.high))
        ends = [[(low, y + 8.5), (high, y + 8.5)], *([(x, y + 5), (x, y + 12)] for x in (low, high))]
        parts.append(element("path", class_="whisker", d=path_of(ends)))
    if bar.chance is not None:
        x = over(bar.chance)
        parts.append(element("line", class_="chance", x1=x, x2=x, y1=y - 1, y2=y + 18))
    return parts


def _told_bar(bar: Bar) -> str:
    bounds = "" if bar.low is None or bar.high is None else f" ({bar.low:.1f} to {bar.high:.1f})"
    chance = "" if bar.chance is None else f", chance {bar.chance:.1f}"
    return f"{bar.name} {bar.value:.1f}{bounds}{chance}."


def heat_maps(matrices: Sequence[tuple[str, Matrix]]) -> Markup:
    """Matrices `[out][in]` side by side, as many in a line as fit; blue above 0, orange below.

    The stronger the colour, the nearer is an entry to the largest of its own matrix.
    """
    n = len(matrices[0][1])
    cell = CELL if n <= MOST_NUMBERED else max(6, CELL * MOST_NUMBERED // n)
    side = n * cell
    per_line = max(1, (WIDTH + GAP) // (side + GAP))
    lines = -(-len(matrices) // per_line)
    parts = []
    for index, (title, matrix) in enumerate(matrices):
        x, y = (index % per_line) * (side + GAP), (index // per_line) * (side + 30)
        parts.append(element("text", title, x=x, y=y + 11, class_="title"))
        parts.extend(_cells(matrix, x, y + 17, cell))
    label = f"{n} by {n} matrices, rows out, columns in. " + " ".join(
        f"{title}: {_told_matrix(matrix)}." for title, matrix in matrices
    )
    return picture(joined(parts), label, WIDTH, lines * (side + 30))


def _cells(matrix: Matrix, left: float, top: float, cell: int) -> list[Markup]:
    largest = max((abs(v) for row in matrix for v in row if v is not None), default=0.0) or 1.0
    parts = []
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            x, y = left + column * cell, top + row * cell
            sign = "unknown" if value is None else "above" if value >= 0 else "below"
            opacity = 0.0 if value is None else round(0.7 * abs(value) / largest, 3)
            parts.append(
                element(
                    "rect", class_=sign, x=x, y=y, width=cell - 1, height=cell - 1, fill_opacity=str(opacity)
                )
            )
            if cell == CELL:
                text = "?" if value is None else entry_text(value)
                parts.append(
                    element(
                        "text",
                        text,
                        x=x + cell / 2 - 0.5,
                        y=y + cell / 2 + 3,
                        text_anchor="middle",
                        class_="entry",
                    )
                )
    return parts


def entry_text(value: float) -> str:
    """An entry in at most five characters."""
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def _told_matrix(matrix: Matrix) -> str:
    return "; ".join(" ".join("unknown" if v is None else entry_text(v) for v in row) for row in matrix)

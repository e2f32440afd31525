"""Elements of SVG, escaped, and the axes that charts are drawn on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
"""Margins; all in the units of the view box."""
DECADE = 10.0
"""A logarithmic axis that spans less has the ticks of a linear one."""
Point = tuple[float, float]


def element(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """An SVG element. Attributes in the order given, `_` for a hyphen, a trailing one dropped."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{said}>{escape(content)}</{name}>" if content else f"<{name}{said}/>")


def _short(value: object) -> str:
    """Numbers to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def joined(parts: Sequence[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


@dataclass(frozen=True)
class Scale:
    """From values to units of the view box."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """A few round values inside the range."""
        locator: Locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        if self.log and self.high / self.low >= DECADE:
            subs = (1.0,) if self.high / self.low >= DECADE**2 else (1.0, 2.0, 5.0)
            locator = LogLocator(subs=subs, numticks=6)
        slack = 1e-9 * (self.high - self.low)
        values = (float(each) for each in locator.tick_values(self.low, self.high))
        return [each for each in values if self.low - slack <= each <= self.high + slack]


def spanning(values: Sequence[float], start: float, end: float, *, log: bool = False) -> Scale:
    """A scale over all values, with a margin; a single value stands in the middle."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** 0.06, 1.05)
        return Scale(low / factor, high * factor, start, end, log=True)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, start, end)


def tick_text(value: float) -> str:
    """A tick in few characters."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:,.6g}"


def axes(across: Scale, up: Scale, across_label: str, up_label: str) -> Markup:
    """Grid, ticks and labels."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in up.ticks:
        y = up(value)
        parts.append(element("line", class_="grid", x1=LEFT, x2=right, y1=y, y2=y))
        parts.append(element("text", tick_text(value), x=LEFT - 5, y=y + 3.5, text_anchor="end"))
    for value in across.ticks:
        x = across(value)
        parts.append(element("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 4))
        parts.append(element("text", tick_text(value), x=x, y=bottom + 15, text_anchor="middle"))
    parts.append(element("line", class_="axis", x1=LEFT, x2=right, y1=bottom, y2=bottom))
    middle = (LEFT + right) / 2
    parts.append(element("text", across_label, x=middle, y=HEIGHT - 6, text_anchor="middle"))
    turn = f"translate(12 {(TOP + bottom) / 2:.0f}) rotate(-90)"
    parts.append(element("text", up_label, text_anchor="middle", transform=turn))
    return joined(parts)


def picture(content: Markup, label: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A whole drawing, which a screen reader reads as `label`."""
    return element(
        "svg", content, viewBox=f"0 0 {width:.0f} {height:.0f}", class_="chart", role="img", aria_label=label
    )


def path_of(runs: Sequence[Sequence[Point]]) -> str:
    """The path of several unbroken lines."""
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs if run)


def unbroken(points: Sequence[Point]) -> list[list[Point]]:
    """Points cut where one is not finite."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if all(map(math.isfinite, point)):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]

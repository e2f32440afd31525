"""Numbers as the tables print them."""

from __future__ import annotations

from collections.abc import Iterable

from mhc_bench.evidence.collate import Cell
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.statistics import Difference, Spread

NOT_MEASURED = "not measured"
NO_VALUE = "-"


def shown(value: float | None, quantity: Quantity) -> str:
    """A value in the quantity's printed unit and decimals."""
    if value is None:
        return NOT_MEASURED
    return f"{value * quantity.scale:,.{quantity.decimals}f}"


def with_unit(quantity: Quantity) -> str:
    """A heading: the title and the printed unit."""
    unit = quantity.shown_unit or quantity.unit
    return f"{quantity.title} ({unit})" if unit and unit != "fraction" else quantity.title


def mean_and_sd(spread: Spread, quantity: Quantity) -> str:
    """`mean ± standard deviation over seeds`; the mean alone for one seed."""
    if spread.sd is None:
        return shown(spread.mean, quantity)
    return f"{shown(spread.mean, quantity)} ± {shown(spread.sd, quantity)}"


def signed(value: float, quantity: Quantity) -> str:
    """A difference, with its sign."""
    return f"{value * quantity.scale:+,.{quantity.decimals}f}"


def interval(difference: Difference, quantity: Quantity) -> str:
    """`(low, high)`, or a dash where there is none."""
    if difference.low is None or difference.high is None:
        return NO_VALUE
    return bounds(difference.low, difference.high, quantity)


def bounds(low: float, high: float, quantity: Quantity) -> str:
    """`(low, high)`, with signs."""
    return f"({signed(low, quantity)}, {signed(high, quantity)})"


def difference_text(cell: Cell, quantity: Quantity) -> str:
    """`mean (low, high)` of the paired difference, or a dash."""
    found = cell.difference
    if found is None or found.mean is None:
        return NO_VALUE
    around = interval(found, quantity)
    mean = signed(found.mean, quantity)
    return mean if around == NO_VALUE else f"{mean} {around}"


def probability(value: float) -> str:
    """A p value with two digits, never as 0."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def percent(share: float, decimals: int = 0) -> str:
    """A share in per cent."""
    return f"{100 * share:.{decimals}f} %"


def magnitude(value: float) -> str:
    """A number of any size in few characters: 1.004, 1684, 7.5e+20."""
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


def value_range(values: Iterable[float], runs: int) -> str:
    """`smallest to largest` over seeds, and how many of the runs have a value where not all have."""
    known = sorted(values)
    if not known:
        return NOT_MEASURED
    low, high = magnitude(known[0]), magnitude(known[-1])
    text = low if low == high else f"{low} to {high}"
    return text if len(known) == runs else f"{text} ({len(known)} of {runs} runs)"


def listed(values: Iterable[object]) -> str:
    """Values separated by commas."""
    return ", ".join(str(value) for value in values)

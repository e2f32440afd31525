"""What the page says of one variant: formula, options, runs, curves, depth, scores and cost, by protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.bands import Band, band, band_of_curve, curve_ends
from mhc_bench.evidence.collate import BASELINE, Arm, Board, Row
from mhc_bench.evidence.depth import Depth, Matrix
from mhc_bench.evidence.page.charts import Bar, Series, bar_chart, heat_maps, line_chart
from mhc_bench.evidence.record import GAIN_BACKWARD, GAIN_FORWARD, GRADIENT_NORM, LOSS, Record
from mhc_bench.evidence.statistics import t_interval
from mhc_bench.evidence.text import shown, with_unit

MOST_MATRICES = 11
"""Sublayers whose H_res is drawn, evenly spaced; the product stands beside them."""
LOOKS = (BASELINE, "hc", "mhc")
OTHER_LOOKS = 5


@dataclass(frozen=True)
class Plot:
    """One figure of the page, or why it is not there."""

    caption: str
    drawing: Markup | None
    legend: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class RunLink:
    """One run, and the record that proves it."""

    seed: int
    status: str
    digest: str
    link: str
    """Empty where the record was read from no file."""


@dataclass(frozen=True)
class ArmPart:
    """A variant under one protocol."""

    arm: Arm
    anchor: str
    runs: tuple[RunLink, ...]
    plots: tuple[Plot, ...]
    cost: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class VariantPart:
    """Everything about one variant."""

    name: str
    look: int
    anchor: str
    connection: str
    options: tuple[tuple[str, str], ...]
    about: str
    """What the connection computes, as its author wrote it; empty where this is not known here."""
    arms: tuple[ArmPart, ...]


def anchor_of(*names: str) -> str:
    """An element's id. No name of a record has a tilde, so no two of them meet."""
    return "~".join(("variant", *names))


def looks(variants: Sequence[str]) -> dict[str, int]:
    """A colour and a dash for each variant; those of baseline, hc and mhc never change."""
    others = [name for name in variants if name not in LOOKS]
    fixed = {name: index for index, name in enumerate(LOOKS)}
    return fixed | {name: len(LOOKS) + index % OTHER_LOOKS for index, name in enumerate(others)}


def variant_parts(
    board: Board, about: Mapping[str, str], link: Callable[[Record], str]
) -> tuple[VariantPart, ...]:
    """All variants of a board, the baseline first.

    Args:
        about: registered connection -> its formula in words.
        link: where a record's file is, from the page.
    """
    return tuple(_variant(board, name, about, link) for name in board.variants)


def _variant(board: Board, name: str, about: Mapping[str, str], link: Callable[[Record], str]) -> VariantPart:
    chosen = looks(board.variants)
    found = [(arm, row) for arm in board.arms for row in arm.rows if row.variant == name]
    identity = next(iter(found[0][1].runs.values())).identity
    options = tuple((key, str(value)) for key, value in sorted(identity.options.items()))
    parts = tuple(_arm_part(arm, row, chosen, link) for arm, row in found)
    said = about.get(identity.connection, "")
    return VariantPart(name, chosen[name], anchor_of(name), identity.connection, options, said, parts)


def _arm_part(arm: Arm, row: Row, chosen: Mapping[str, int], link: Callable[[Record], str]) -> ArmPart:
    runs = tuple(
        RunLink(seed, run.status, run.digest[:16], link(run)) for seed, run in sorted(row.runs.items())
    )
    plots = (*_over_training(arm, row, chosen), *_over_depth(row, chosen), *_scores(arm, row, chosen))
    cost = tuple((with_unit(one), shown(arm.cell(row, one).spread.mean, one)) for one in q.COST)
    return ArmPart(arm, anchor_of(arm.name, row.variant), runs, plots, cost)


def series_of(row: Row, name: str, chosen: Mapping[str, int], *, log: bool) -> list[Series]:
    """A variant's line of one curve; none where no run has it."""
    found = band_of_curve(row, name, log=log)
    ends = curve_ends(row, name, log=log)
    return [] if found is None else [Series(row.variant, chosen[row.variant], found, ends)]


def overview(arm: Arm, chosen: Mapping[str, int]) -> tuple[Plot, ...]:
    """Loss, gains and gradient norm of all variants of a protocol."""
    return tuple(_training_plot(arm.rows, *one, chosen) for one in TRAINING)


TRAINING = (
    (LOSS, "Training loss (nats/token)", False),
    (GRADIENT_NORM, "Gradient norm before clipping", True),
    (GAIN_FORWARD, "Forward composite gain", True),
    (GAIN_BACKWARD, "Backward composite gain", True),
)
"""Curve, label, logarithmic."""


def _over_training(arm: Arm, row: Row, chosen: Mapping[str, int]) -> list[Plot]:
    """The variant's curves, beside the baseline's."""
    base = [arm.baseline] if arm.baseline and arm.baseline is not row else []
    return [_training_plot((*base, row), *one, chosen) for one in TRAINING]


def _training_plot(rows: Sequence[Row], name: str, label: str, log: bool, chosen: Mapping[str, int]) -> Plot:
    series = [line for row in rows for line in series_of(row, name, chosen, log=log)]
    drawing = line_chart(series, label, log=log, framed_from=0.0 if log else 0.1)
    mean = "geometric mean" if log else "mean"
    caption = f"{label}: {mean} over seeds, band from the lowest to the highest seed."
    return Plot(caption, drawing, tuple((line.name, line.look) for line in series))


def _over_depth(row: Row, chosen: Mapping[str, int]) -> list[Plot]:
    """The paper's figures 3, 7 and 8 in kind."""
    found = {
        seed: run.mechanism.depth for seed, run in row.runs.items() if run.mechanism and run.mechanism.depth
    }
    return [
        _depth_plot(found, "H_res of each sublayer", "forward_gain", "backward_gain"),
        _depth_plot(found, "Products over depth", "composite_forward_gain", "composite_backward_gain"),
        _matrices_plot(found),
    ]


def _depth_plot(found: Mapping[int, Depth], what: str, forward: str, backward: str) -> Plot:
    caption = (
        f"Amax gain over depth. {what}: largest row sum (forward) and column sum (backward) at the last "
        "probe, geometric mean over seeds."
    )
    series = [
        Series(name, look, line)
        for look, (name, field) in enumerate((("forward", forward), ("backward", backward)), start=1)
        if (line := _depth_band([getattr(depth, field) for depth in found.values()])) is not None
    ]
    drawing = line_chart(series, "Amax gain", log=True, across="Sublayer")
    return Plot(caption, drawing, tuple((line.name, line.look) for line in series))


def _depth_band(gains: Sequence[Sequence[float | None]]) -> Band | None:
    return band([(range(1, len(each) + 1), each) for each in gains], log=True)


def _matrices_plot(found: Mapping[int, Depth]) -> Plot:
    caption = "H_res by sublayer and the product of all, mean over the probe's tokens"
    if not found:
        return Plot(f"{caption}.", None)
    seed, depth = next(iter(sorted(found.items())))
    last = len(depth.mixing) - 1
    shown_ones = sorted({round(index * last / (MOST_MATRICES - 1)) for index in range(MOST_MATRICES)})
    chosen: list[tuple[str, Matrix]] = [
        (f"Sublayer {index + 1}", depth.mixing[index]) for index in shown_ones
    ]
    drawing = heat_maps([*chosen, ("Product", depth.product)])
    return Plot(f"{caption}; seed {seed}, step {depth.step}. Rows out, columns in.", drawing)


def _scores(arm: Arm, row: Row, chosen: Mapping[str, int]) -> list[Plot]:
    bars = []
    for name, task in arm.tasks.items():
        sample = arm.cell(row, q.task_quantity(name, task)).spread
        if not q.is_fraction(task) or sample.mean is None:
            continue
        low, high = t_interval(sample) or (None, None)
        numbers = (None if each is None else 100 * each for each in (low, high, task.chance))
        bars.append(Bar(name, 100 * sample.mean, *numbers))
    if not arm.tasks:
        return []
    caption = "Downstream scores in per cent: mean over seeds with its 95 % t interval; the mark is chance."
    return [Plot(caption, bar_chart(bars, chosen[row.variant]) if bars else None)]

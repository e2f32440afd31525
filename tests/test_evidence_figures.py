"""The figures draw what the records hold: every seed, log axes for gains, an end mark for diverged runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence_factory import LOSSES, make_evidence, make_record, study_records, suite_records
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from mhc_bench.evidence import GAIN_FORWARD, GRADIENT_NORM, LOSS, Curve, assemble_record, figures
from mhc_bench.evidence.bands import Band, band
from mhc_bench.evidence.collate import Board, Row, collate
from mhc_bench.evidence.figures import PLANS, draw, planned, styles

BY_NAME = {plan.name: plan for plan in PLANS}


def panels(board: Board, name: str) -> list[Axes]:
    """The axes of a figure, row by row."""
    return draw(board, BY_NAME[name]).axes


def line(axes: Axes, colour: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the mean line in a colour: the first one drawn."""
    found = next(one for one in axes.lines if to_hex(one.get_color()) == colour.lower())
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_the_loss_line_is_the_mean_over_seeds_and_the_band_its_range() -> None:
    (axes,) = panels(collate(suite_records()), "loss")
    steps, values = line(axes, styles(())["hc"][0])
    curves = [make_record("hc", seed).curve(LOSS) for seed in range(3)]
    each = np.array([curve.values for curve in curves if curve], dtype=float)
    np.testing.assert_allclose(values, each.mean(axis=0))
    assert list(steps[:2]) == [5, 10]
    edge = np.concatenate([path.vertices for path in axes.collections[1].get_paths()])
    at_end = edge[edge[:, 0] == 120, 1]
    assert at_end.min() == pytest.approx(each[:, -1].min())
    assert at_end.max() == pytest.approx(each[:, -1].max())


def test_the_gain_line_is_the_geometric_mean_on_a_logarithmic_axis() -> None:
    axes = panels(collate(suite_records()), "gain")[0]
    assert axes.get_yscale() == "log"
    _, values = line(axes, styles(())["hc"][0])
    curves = [make_record("hc", seed).curve(GAIN_FORWARD) for seed in range(3)]
    each = np.array([curve.values for curve in curves if curve], dtype=float)
    np.testing.assert_allclose(values, np.prod(each, axis=0) ** (1 / 3))


def test_the_last_bits_of_a_processors_logarithms_move_no_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [axes.get_position().bounds for axes in panels(collate(study_records()), "gain")]
    original = figures.band_of_curve

    def nudged(row: Row, name: str, log: bool) -> Band | None:
        found = original(row, name, log=log)
        return found and replace(found, low=np.nextafter(found.low, 0), high=np.nextafter(found.high, 9))

    monkeypatch.setattr(figures, "band_of_curve", nudged)
    after = [axes.get_position().bounds for axes in panels(collate(study_records()), "gain")]
    assert after == before
    # widths are differences of rounded places
    assert all(edge == pytest.approx(round(edge, 6), abs=1e-12) for bounds in after for edge in bounds)


def test_a_study_has_a_panel_for_each_arm_and_each_direction() -> None:
    board = collate(study_records())
    assert len(panels(board, "gain")) == 4
    assert len(panels(board, "loss")) == 2


def test_the_mean_ends_with_the_first_run_that_ends_and_a_mark_stands_there() -> None:
    hot = panels(collate(study_records()), "loss")[0]
    steps, values = line(hot, styles(())["hc"][0])
    assert steps[np.isfinite(values)].max() == 70
    marks = [one for one in hot.lines if one.get_marker() == "x"]
    assert [list(np.asarray(mark.get_xdata())) for mark in marks] == [[70]]


def test_the_seeds_that_go_on_are_still_drawn() -> None:
    hot = panels(collate(study_records()), "loss")[0]
    colour = styles(())["hc"][0].lower()
    ends = [np.asarray(one.get_xdata()).max() for one in hot.lines if to_hex(one.get_color()) == colour]
    assert ends.count(120) >= 3


def test_the_mean_is_a_line_where_a_run_that_diverged_was_sampled_at_other_steps() -> None:
    good, short = list(range(5, 121, 5)), [*range(3, 70, 3), 70]
    curves = [
        (steps, [seed + 200.0 - step for step in steps]) for seed, steps in enumerate((good, good, short))
    ]
    found = band(curves, log=False)
    assert found is not None
    drawn = np.isfinite(found.middle)
    assert list(found.places[drawn]) == [step for step in sorted({*good, *short}) if 5 <= step <= 70]
    np.testing.assert_allclose(found.middle[drawn], 201.0 - found.places[drawn])
    late = found.places > 70
    assert set((found.high - found.low)[late]) == {1.0} and np.isnan(found.values[2, late]).all()


def test_a_logarithmic_curve_is_straight_between_its_steps_and_stops_beside_a_gap() -> None:
    found = band([([0, 2, 4, 6], [1.0, 100.0, 0.0, 5.0]), ([0, 1, 3, 5], [1.0] * 4)], log=True)
    assert found is not None
    np.testing.assert_allclose(found.values[0], [1.0, 10.0, 100.0, *[np.nan] * 3, 5.0])


def test_curves_of_the_same_steps_keep_their_bits() -> None:
    values = np.random.default_rng(0).lognormal(size=(3, 50))
    for log in (False, True):
        found = band([(range(1, 51), list(each)) for each in values], log=log)
        assert found is not None
        np.testing.assert_array_equal(found.values, values)


def test_values_that_cannot_be_drawn_leave_a_gap() -> None:
    curve = Curve(steps=(1, 2, 3), values=(1.0, None, 0.0))
    evidence = make_evidence("baseline", 0)
    record = assemble_record(replace(evidence, curves={**evidence.curves, GRADIENT_NORM: curve}))
    _, values = line(panels(collate([record]), "gradient_norm")[0], styles(())["baseline"][0])
    np.testing.assert_array_equal(np.isfinite(values), [True, False, False])


def test_a_figure_without_any_curve_is_not_planned() -> None:
    records = [assemble_record(replace(make_evidence(name, 0), curves={})) for name in LOSSES]
    assert [plan.name for plan in planned(collate(records))] == ["loss"]


def test_colours_belong_to_variants_and_differ() -> None:
    crowd = tuple(f"variant{index:02}" for index in range(12))
    chosen = styles(("baseline", *crowd, "mhc"))
    assert chosen["mhc"] == styles(("mhc",))["mhc"]
    assert len({repr(style) for style in chosen.values()}) == len(chosen)


def test_axes_say_what_they_show() -> None:
    axes = panels(collate(suite_records()), "loss")[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Step", "Training loss (nats/token)")

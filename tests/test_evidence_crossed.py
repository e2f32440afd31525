"""Seeds crossed with items: against an analysis of variance, scipy's t test, and records of real runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from mhc_bench.errors import RunError
from mhc_bench.evidence import load_board
from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.by_item import NoItemsError, item_differences, mean_item_differences
from mhc_bench.evidence.collate import Arm, Row
from mhc_bench.evidence.statistics.crossed import Differences, crossed, crossed_mean
from mhc_bench.evidence.uncertainty import by_item, gaps

RESULTS = Path(__file__).parent.parent / "results"
WITH_ITEMS = RESULTS / "records" / "quick-cc4f49c1b1"
WITHOUT = RESULTS / "repetitions" / "quick-cc4f49c1b1"


def drawn(
    seeds: int, items: int, seed_sd: float, item_sd: float, rest_sd: float, key: int = 0
) -> Differences:
    """Differences around 0.1 with effects of the stated sizes."""
    random = np.random.default_rng(key)
    of_seeds, of_items = random.normal(0, seed_sd, (seeds, 1)), random.normal(0, item_sd, (1, items))
    return 0.1 + of_seeds + of_items + random.normal(0, rest_sd, (seeds, items))


def test_the_parts_are_those_of_an_analysis_of_variance() -> None:
    d = drawn(4, 7, 0.2, 0.3, 0.5)
    rows = [{"seed": s, "item": i, "d": d[s, i]} for s in range(4) for i in range(7)]
    squares = anova_lm(ols("d ~ C(seed) + C(item)", pd.DataFrame(rows)).fit())["mean_sq"]
    by_seed, by_items, rest = squares["C(seed)"], squares["C(item)"], squares["Residual"]
    found = crossed(d)
    assert found is not None
    assert found.rest_sd**2 == pytest.approx(rest)
    assert found.seed_sd**2 == pytest.approx(max(0, by_seed - rest) / 7)
    assert found.item_sd**2 == pytest.approx(max(0, by_items - rest) / 4)
    assert found.seed_error**2 == pytest.approx(by_seed / 28)
    assert found.item_error**2 == pytest.approx(max(0, by_items - rest) / 28)
    assert found.document_error**2 == pytest.approx(found.item_sd**2 / 7 + rest / 7)


def test_the_interval_for_these_items_is_the_t_interval_by_seed() -> None:
    d = drawn(5, 40, 0.2, 0.3, 0.5)
    found, oracle = crossed(d), stats.ttest_1samp(d.mean(axis=1), 0).confidence_interval(0.95)
    assert found is not None
    assert found.same_items == pytest.approx((oracle.low, oracle.high))


def test_two_by_two_worked_by_hand() -> None:
    # seed means 2 and 4, item means 1 and 5, mean 3; what is left is +-1
    found = crossed(np.array([[1.0, 3.0], [1.0, 7.0]]))
    assert found is not None
    assert found.mean == 3
    # mean squares: seeds 2 x 2 = 4, items 2 x 8 = 16, rest 4
    assert found.rest_sd == pytest.approx(2)
    assert found.seed_sd == 0
    assert found.item_sd == pytest.approx(np.sqrt(6))
    assert found.seed_error == pytest.approx(1)
    assert found.item_error == pytest.approx(np.sqrt(3))


def test_the_freedom_of_new_items_worked_by_hand() -> None:
    # seed effects -3 -1 1 3, item effects -4 0 4, and a rest whose rows and columns sum to 0
    rest = np.array([[1.0, -1, 0], [-1, 1, 0], [0, 1, -1], [0, -1, 1]])
    found = crossed(10 + np.array([-3.0, -1, 1, 3])[:, None] + np.array([-4.0, 0, 4]) + rest)
    assert found is not None
    # of the mean: seeds (20/3) / 4 (3), items 4 x 32/2 over 12 (2), less the rest's 8/6 over 12 (6)
    of_seeds, of_items, left = 20 / 3 / 4, 64 / 12, 8 / 6 / 12
    freedom = (of_seeds + of_items - left) ** 2 / (of_seeds**2 / 3 + of_items**2 / 2 + left**2 / 6)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(of_seeds + of_items - left)
    assert found.new_items == pytest.approx((10 - half, 10 + half))
    assert (found.seed_error**2, found.item_error**2) == pytest.approx((of_seeds, of_items - left))
    assert found.seed_sd**2 == pytest.approx(20 / 3 - 8 / 6 / 3)


def test_items_that_show_no_effect_of_their_own_leave_the_interval_as_it_is() -> None:
    # item means are all 0, so the items' mean square is 0, and below that of the rest
    found = crossed(np.array([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0], [-2.0, 2.0]]) + np.arange(4.0)[:, None])
    assert found is not None
    assert (found.item_error, found.item_sd) == (0, 0)
    assert found.new_items == pytest.approx(found.same_items)


def test_items_that_vary_just_as_the_rest_does_leave_the_interval_as_it_is() -> None:
    # seeds +-2, items +-1, rest +-1: both mean squares are 4
    found = crossed(np.array([[4.0, 0.0], [-2.0, -2.0]]))
    assert found is not None
    assert (found.item_error, found.rest_sd) == (0, 2)
    assert found.new_items == found.same_items


def test_averaging_over_more_seeds_reduces_the_seeds_error_and_not_the_items() -> None:
    few = [crossed(drawn(4, 200, 0.1, 0.4, 0.2, key)) for key in range(40)]
    many = [crossed(drawn(64, 200, 0.1, 0.4, 0.2, key)) for key in range(40)]

    def typical(errors: list[float]) -> float:
        return float(np.sqrt(np.mean(np.square(errors))))

    ratio = typical([each.seed_error for each in many if each]) / typical([e.seed_error for e in few if e])
    assert ratio == pytest.approx(0.25, abs=0.05)
    for sample in (few, many):
        assert typical([e.item_error for e in sample if e]) == pytest.approx(0.4 / np.sqrt(200), rel=0.05)


def test_components_are_estimated_without_bias() -> None:
    found = [crossed(drawn(3, 60, 0.3, 0.2, 0.5, key)) for key in range(300)]
    assert np.mean([each.seed_sd**2 for each in found if each]) == pytest.approx(0.09, abs=0.016)
    assert np.mean([each.item_sd**2 for each in found if each]) == pytest.approx(0.04, abs=0.006)
    assert np.mean([each.rest_sd**2 for each in found if each]) == pytest.approx(0.25, abs=0.005)


def test_the_interval_for_new_items_is_wider_where_items_differ_and_never_narrower() -> None:
    for key in range(30):
        found = crossed(drawn(3, 50, 0.1, 0.3 * (key % 3), 0.2, key))
        assert found is not None
        assert found.new_items[0] <= found.same_items[0] < found.same_items[1] <= found.new_items[1]
    apart = crossed(drawn(8, 20, 0.01, 1.0, 0.1))
    assert apart is not None
    ends = apart.new_items[1] - apart.new_items[0], apart.same_items[1] - apart.same_items[0]
    assert ends[0] > 3 * ends[1]


def test_nothing_is_claimed_of_one_seed_one_item_or_no_spread() -> None:
    assert crossed(np.ones((1, 5))) is None
    assert crossed(np.arange(3.0)[:, None]) is None
    assert crossed(np.tile([0.0, 1.0, 1.0], (3, 1))) is None
    same = crossed(np.zeros((3, 4)))
    assert same is not None and same.new_items == (0, 0)
    pair = crossed(np.zeros((2, 4)))
    assert pair is not None and pair.new_items == (0, 0)
    almost = crossed(1.0 + 1e-13 * np.arange(3.0)[:, None] + np.array([-0.5, 0.5]))
    assert almost is None
    assert crossed(1.0 + 1e-11 * np.arange(3.0)[:, None] + np.array([-0.5, 0.5])) is not None
    with pytest.raises(ValueError, match=r"^differences must be finite$"):
        crossed(np.full((2, 2), np.nan))


@pytest.mark.parametrize("unit", [1e-13, 1e13])
def test_intervals_do_not_depend_on_the_unit(unit: float) -> None:
    d = drawn(4, 7, 0.2, 0.3, 0.5)
    found, scaled = crossed(d), crossed(unit * d)
    assert found is not None and scaled is not None
    assert np.array(scaled.new_items) / unit == pytest.approx(np.array(found.new_items))
    assert crossed(unit * np.ones((3, 4))) is None


def test_the_mean_over_tasks_worked_by_hand() -> None:
    # tasks of two and three items: seed means of the tasks are 2, 4 and 4, 4; of the mean over tasks 3, 4
    tasks = [np.array([[1.0, 3.0], [1.0, 7.0]]), np.array([[1.0, 4.0, 7.0], [1.0, 4.0, 7.0]])]
    found = crossed_mean(tasks)
    assert found is not None
    assert (found.seeds, found.items, found.mean) == (2, 5, 3.5)
    assert found.seed_error**2 == pytest.approx(0.25)
    # item shares (16 - 4) / 4 and 18 / 6, over two squared; what is left is 4 for one pair on two items
    assert found.item_error**2 == pytest.approx((3 + 3) / 4)
    assert found.document_error**2 == pytest.approx((3 + 3) / 4 + (4 / 2) / 4)
    # Satterthwaite: seeds 1/4 (1), items 16 and 4 of weight 1/16 (1, 1), 18 of weight 1/24 (2)
    freedom = 1.75**2 / (0.25**2 + 1 + 0.25**2 + 0.75**2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(1.75)
    half = max(half, stats.t.ppf(0.975, 1) * 0.5)
    assert found.new_items == pytest.approx((3.5 - half, 3.5 + half))


def test_the_mean_over_tasks_covers_new_seeds_on_new_items_and_one_task_is_itself() -> None:
    random, held = np.random.default_rng(7), 0
    for _ in range(2000):
        of_seeds = random.normal(0, 0.1, (5, 1))
        tasks = [
            0.1 + of_seeds + random.normal(0, 0.5, (1, items)) + random.normal(0, 0.3, (5, items))
            for items in (20, 40, 80)
        ]
        found = crossed_mean(tasks)
        assert found is not None
        held += found.new_items[0] <= 0.1 <= found.new_items[1]
    assert 0.93 <= held / 2000 <= 0.98
    single = crossed(tasks[0])
    assert single is not None and single.new_items == crossed_mean(tasks[:1]).new_items  # type: ignore[union-attr]


@pytest.mark.parametrize("family", [q.SCORES, q.GOLD])
def test_items_of_all_tasks_give_the_difference_of_the_records_means(arm: Arm, family: str) -> None:
    tasks = tuple(arm.tasks)
    quantity = (q.score_quantity if family == q.SCORES else q.gold_quantity)(tasks)
    for row in arm.rows[1:]:
        found, by_seed = mean_item_differences(arm, row, tasks, family), arm.difference(row, quantity)
        assert by_seed is not None
        assert (found.seeds, found.items) == (5, sum(arm.tasks[task].n for task in tasks))
        assert found.mean == pytest.approx(by_seed.mean, abs=1e-9)
        assert found.same_items == pytest.approx((by_seed.low, by_seed.high), abs=1e-9)


@pytest.fixture(scope="module")
def arm() -> Arm:
    """Real runs with what every item scored."""
    return load_board(WITH_ITEMS).arms[0]


@pytest.mark.parametrize("family", [q.SCORES, q.GOLD])
def test_items_of_real_runs_give_the_differences_of_their_records(arm: Arm, family: str) -> None:
    for task, quantity in zip(arm.tasks, q.task_quantities(arm.tasks, family), strict=True):
        for row in arm.rows[1:]:
            found, by_seed = item_differences(arm, row, task, family), arm.difference(row, quantity)
            assert by_seed is not None
            assert (found.seeds, found.items) == (5, arm.tasks[task].n)
            assert found.mean == pytest.approx(by_seed.mean, abs=1e-9)
            assert found.same_items == pytest.approx((by_seed.low, by_seed.high), abs=1e-9)


def test_the_page_shows_both_errors_of_every_task(arm: Arm) -> None:
    table = by_item(arm)
    assert len(table.rows) == 2 * 2 * 8 + 2 * 2
    assert table.rows[-1][:3] == ("Gold answers' log-likelihood, mean over 8 tasks (nats)", "mhc", "5")
    assert table.rows[-1][3] == str(sum(task.n for task in arm.tasks.values()))
    assert table.rows[0][:4] == ("world_bbh (%)", "hc", "5", "250")
    assert not any("item by item" in gap for gap in gaps(arm))


def test_records_of_version_1_have_no_items_and_the_page_says_so() -> None:
    old = load_board(WITHOUT).arms[0]
    assert not by_item(old).rows
    (gap,) = (gap for gap in gaps(old) if "item by item" in gap)
    assert gap.endswith("no per-item outcomes (records of schema version 1 have none)")
    assert "hc in world_bbh" in gap and "13 more" in gap
    with pytest.raises(NoItemsError, match="schema version 1"):
        item_differences(old, old.rows[1], "world_bbh", q.SCORES)


def copied(tmp_path: Path) -> Path:
    return shutil.copytree(WITH_ITEMS, tmp_path / WITH_ITEMS.name)


def first_task(folder: Path) -> tuple[Arm, Row]:
    arm = load_board(folder).arms[0]
    return arm, arm.rows[1]


@pytest.mark.parametrize("kind", ["damaged", "another run's"])
def test_items_that_are_not_the_records_are_refused(kind: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    path = folder / "hc" / "seed1.items.json.gz"
    if kind == "damaged":
        path.write_bytes(b"not gzip")
    else:
        shutil.copyfile(folder / "hc" / "seed2.items.json.gz", path)
    arm, row = first_task(folder)
    with pytest.raises(RunError, match=r"seed1\.items\.json\.gz.*outcomes"):
        item_differences(arm, row, "world_bbh", q.SCORES)


def test_one_run_without_its_items_leaves_the_others_comparison_out(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "hc" / "seed1.items.json.gz").unlink()
    arm, row = first_task(folder)
    with pytest.raises(NoItemsError, match="no per-item outcomes"):
        item_differences(arm, row, "world_bbh", q.SCORES)
    assert item_differences(arm, arm.rows[2], "world_bbh", q.SCORES).seeds == 5

"""What is summed up from lm-eval's outcome, against arithmetic on the kept items."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import evaluation_toy as toy
import numpy as np
import pytest

from mhc_bench.errors import RunError
from mhc_bench.evaluation import read_summary
from mhc_bench.evaluation.baselines import Baselines
from mhc_bench.evaluation.harness import Outcome
from mhc_bench.evaluation.items import ITEMS_FILE, write_items
from mhc_bench.evaluation.scores import json_clean, request_hash, summarise
from mhc_bench.evaluation.summary import EvaluationSummary, write_evaluation


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = toy.write_tasks(tmp_path_factory.mktemp("tasks"))
    names = [toy.CHOICE, toy.GENERATION]
    return toy.run_tasks(toy.model(), names, folder=folder, metadata={"world_seed": 5})


@pytest.fixture(scope="module")
def summary(outcome: Outcome) -> EvaluationSummary:
    even = Baselines(chance=0.25, prior=0.5)
    known = {toy.GENERATION: Baselines(chance=0.0, prior=0.125, kinds={"even": even})}
    return summarise(outcome, known, seconds=1.5)


def test_the_score_and_its_error_are_those_of_the_items(outcome: Outcome, summary: EvaluationSummary) -> None:
    right = [
        max(range(3), key=lambda i: item["resps"][i][0][0]) == item["doc"]["gold"]
        for item in outcome.samples[toy.CHOICE]
    ]
    score = summary.tasks[toy.CHOICE]
    assert 0 < sum(right) < 40
    assert score.value == pytest.approx(sum(right) / 40)
    assert score.stderr == pytest.approx(np.std(right, ddof=1) / math.sqrt(40))
    assert (score.metric, score.n, score.shots, score.version) == ("acc,none", 40, 1, "1.5")


def test_chance_is_uniform_over_the_choices_unless_it_is_known(summary: EvaluationSummary) -> None:
    assert summary.tasks[toy.CHOICE].chance == pytest.approx(1 / 3)
    assert summary.tasks[toy.CHOICE].prior is None
    assert summary.tasks[toy.GENERATION].chance == 0.0
    assert summary.tasks[toy.GENERATION].prior == 0.125


def test_the_mean_counts_each_task_once(summary: EvaluationSummary) -> None:
    assert summary.mean == pytest.approx(sum(task.value for task in summary.tasks.values()) / 2)


def test_each_kind_of_item_has_its_own_score(outcome: Outcome, summary: EvaluationSummary) -> None:
    score = summary.tasks[toy.CHOICE]
    assert set(score.subtasks) == {"even", "odd"}
    even = outcome.samples[toy.CHOICE][::2]
    assert score.subtasks["even"].value == pytest.approx(sum(item["acc"] for item in even) / 20)
    assert score.subtasks["even"].n == 20
    gold = [item["resps"][item["doc"]["gold"]][0][0] for item in even]
    assert score.subtasks["even"].gold_loglikelihood == pytest.approx(sum(gold) / 20)
    assert summary.tasks[toy.GENERATION].subtasks["even"].prior == 0.5
    assert summary.tasks[toy.GENERATION].subtasks["odd"].prior is None


def test_the_scores_are_the_means_of_the_items_file(
    outcome: Outcome, summary: EvaluationSummary, tmp_path: Path
) -> None:
    write_items(outcome, summary, tmp_path)
    items = json.loads(gzip.decompress((tmp_path / ITEMS_FILE).read_bytes()))
    assert items["tasks"].keys() == summary.tasks.keys()
    for name, task in items["tasks"].items():
        score = summary.tasks[name]
        assert (task["metric"], task["aggregation"]) == (score.metric, "mean")
        assert task["documents"] == list(range(40))
        assert score.value == pytest.approx(np.mean(task["values"]))
        assert score.gold_loglikelihood == pytest.approx(np.mean(task["gold"]))
        odd = [value for value, kind in zip(task["values"], task["kinds"], strict=True) if kind == "odd"]
        assert score.subtasks["odd"].value == pytest.approx(np.mean(odd))


def test_the_same_items_give_the_same_file(
    outcome: Outcome, summary: EvaluationSummary, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        write_items(outcome, summary, tmp_path / name)
    assert (tmp_path / "one" / ITEMS_FILE).read_bytes() == (tmp_path / "other" / ITEMS_FILE).read_bytes()


def test_the_request_hash_tells_any_other_request_apart(outcome: Outcome) -> None:
    items = outcome.samples[toy.GENERATION]
    base = request_hash("generate_until", items)
    assert base == request_hash("generate_until", [dict(item) for item in items])
    assert base != request_hash("loglikelihood", items)
    assert base != request_hash("generate_until", items[::-1])
    context, options = items[0]["arguments"][0]
    changed = [{**items[0], "arguments": [(context, {**options, "max_gen_toks": 6})]}, *items[1:]]
    assert base != request_hash("generate_until", changed)


def test_a_loglikelihood_that_is_not_finite_becomes_null(outcome: Outcome) -> None:
    broken = Outcome(
        outcome.results,
        outcome.samples,
        {**outcome.gold, toy.CHOICE: [math.nan] * 40},
        outcome.tasks,
        [],
    )
    assert summarise(broken, {}, 0).tasks[toy.CHOICE].gold_loglikelihood is None


def test_a_written_summary_reads_back_equal(tmp_path: Path, summary: EvaluationSummary) -> None:
    write_evaluation({"results": {}}, summary, tmp_path)
    assert read_summary(tmp_path) == summary
    assert set(json.loads((tmp_path / "evaluation.json").read_text())) == {"results", "summary"}


def test_a_damaged_evaluation_is_one_clear_line(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None
    (tmp_path / "evaluation.json").write_text('{"results": {}')
    with pytest.raises(RunError, match=r"evaluation.json is damaged"):
        read_summary(tmp_path)


def test_results_hold_nothing_that_json_cannot() -> None:
    dirty = {1: [np.float64(0.5), np.bool_(True), np.int64(3), math.nan, math.inf, {"a"}, (None, Path("x"))]}
    assert json_clean(dirty) == {"1": [0.5, True, 3, None, None, ["a"], [None, "x"]]}

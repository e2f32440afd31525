"""The evaluation of a run's folder on the shipped tasks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import evaluation_toy as toy
import pytest

from mhc_bench.config import RunConfig
from mhc_bench.data.world import FAMILIES, baselines, items
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation import EvaluationSummary, check_tasks, evaluate, read_summary, task_names
from mhc_bench.evaluation.scores import json_clean


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return toy.run_config("mhc", tasks=("mhc_world",))


@pytest.fixture(scope="module")
def run_dir(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.trained(config, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def summary(config: RunConfig, run_dir: Path) -> EvaluationSummary:
    return evaluate(config, run_dir)


def test_the_group_of_the_world_gives_one_score_per_family(summary: EvaluationSummary) -> None:
    assert set(summary.tasks) == {f"world_{name}" for name in FAMILIES}
    assert all(score.n == 6 for score in summary.tasks.values())
    assert all(score.gold_loglikelihood is not None for score in summary.tasks.values())
    assert summary.seconds > 0


def test_items_are_those_of_the_world_that_the_run_was_trained_on(
    summary: EvaluationSummary, run_dir: Path
) -> None:
    for name in FAMILIES:
        lines = (run_dir / "samples" / f"world_{name}.jsonl").read_text().splitlines()
        asked = [json.loads(line)["doc"]["context"] for line in lines]
        assert asked == [item.context for item in items(name, 3)[:6]]
        assert asked != [item.context for item in items(name, 0)[:6]]


def test_chance_and_prior_are_those_of_the_items_asked(summary: EvaluationSummary) -> None:
    for name in FAMILIES:
        known, found = baselines(name, 3, limit=6), summary.tasks[f"world_{name}"]
        assert (found.chance, found.prior) == (known.chance, known.prior)
        for kind, part in found.subtasks.items():
            assert (part.chance, part.prior) == known.subs[kind]


def test_kinds_of_puzzle_have_their_own_scores(summary: EvaluationSummary) -> None:
    kinds = summary.tasks["world_bbh"].subtasks
    assert set(kinds) == {"track", "dyck", "bool", "hop"}
    assert sum(part.n for part in kinds.values()) == 6


def test_drop_is_scored_by_f1(summary: EvaluationSummary) -> None:
    assert summary.tasks["world_drop"].metric == "f1,none"


def test_the_file_holds_lm_evals_results_and_no_place_of_this_machine(
    summary: EvaluationSummary, run_dir: Path
) -> None:
    text = (run_dir / "evaluation.json").read_text()
    content = json.loads(text)
    for key in ("results", "configs", "versions", "n-shot", "n-samples", "higher_is_better", "summary"):
        assert key in content
    assert content["results"]["world_piqa"]["acc,none"] == summary.tasks["world_piqa"].value
    assert content["configs"]["world_piqa"]["metadata"]["config_source"] == "world/world_piqa.yaml"
    assert str(run_dir) not in text and str(Path.cwd()) not in text and str(Path.home()) not in text
    assert content["warnings"] == []
    assert read_summary(run_dir) == summary
    assert not (run_dir / "progress.json").exists()


def test_other_weights_are_asked_the_same_and_another_world_is_not(
    config: RunConfig, summary: EvaluationSummary, tmp_path: Path
) -> None:
    piqa = dataclasses.replace(config.evaluation, tasks=["world_piqa"])
    same = dataclasses.replace(config, evaluation=piqa)
    other = dataclasses.replace(same, data=dataclasses.replace(config.data, world_seed=4))
    first = evaluate(same, toy.trained(same, tmp_path / "same", seed=1)).tasks["world_piqa"]
    second = evaluate(other, toy.trained(other, tmp_path / "other")).tasks["world_piqa"]
    assert first.request_hash == summary.tasks["world_piqa"].request_hash != second.request_hash
    assert first.gold_loglikelihood != summary.tasks["world_piqa"].gold_loglikelihood


def test_a_run_without_its_final_model_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished model"):
        evaluate(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_can_go_to_another_folder(
    config: RunConfig, run_dir: Path, summary: EvaluationSummary, tmp_path: Path
) -> None:
    one = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, tasks=["world_mmlu"]))
    before = (run_dir / "evaluation.json").read_bytes()
    found = evaluate(one, run_dir, tmp_path / "elsewhere")
    assert (run_dir / "evaluation.json").read_bytes() == before
    assert read_summary(tmp_path / "elsewhere") == found
    again, first = found.tasks["world_mmlu"], summary.tasks["world_mmlu"]
    assert (again.value, again.request_hash) == (first.value, first.request_hash)


def test_unknown_and_missing_tasks_are_refused_before_anything_is_written(
    config: RunConfig, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, tasks=["world_pica"])
    )
    with pytest.raises(UsageError, match="did you mean 'world_piqa'"):
        evaluate(wrong, tmp_path)
    with pytest.raises(UsageError, match="names no evaluation tasks"):
        evaluate(toy.run_config("mhc"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_shipped_task_is_listed() -> None:
    names = task_names()
    assert "mhc_world" in names
    check_tasks([name for name in names if name != "mhc_world"])


def test_samples_survive_the_way_through_json(run_dir: Path, summary: EvaluationSummary) -> None:
    for path in (run_dir / "samples").iterdir():
        for line in path.read_text().splitlines():
            item = json.loads(line)
            assert json_clean(item) == item
            assert {"doc_id", "doc", "arguments", "resps", "doc_hash", "prompt_hash", "target_hash"} <= set(
                item
            )

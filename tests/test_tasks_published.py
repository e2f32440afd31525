"""The wiring of the published benchmarks, offline, on rows of our own: shots, metric, prompts, chance."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import benchmark_rows
import evaluation_toy as toy
import pytest

from mhc_bench.evaluation.baselines import known_baselines, written_chance
from mhc_bench.evaluation.harness import Outcome, ask
from mhc_bench.evaluation.run import _write
from mhc_bench.evaluation.scores import summarise
from mhc_bench.evaluation.summary import EvaluationSummary, TaskScore, read_summary


class Entry(NamedTuple):
    shots: int
    metric: str
    chance: float
    mark: str
    """Stands once in the question and once in each worked example."""
    parts: int = 0


MHC = {
    "bbh_cot_fewshot": Entry(3, "exact_match,get-answer", (6 / 2 + 21 / 3) / 27, "\nA: Let's think step", 27),
    "mhc_paper_drop": Entry(3, "f1,none", 0, "Passage: "),
    "gsm8k_cot": Entry(8, "exact_match,strict-match", 0, "Q: "),
    "hellaswag": Entry(10, "acc,none", 1 / 4, ": One Who"),
    "mhc_paper_math": Entry(4, "exact_match,none", 0, "Problem:\n", 7),
    "mmlu": Entry(5, "acc,none", 1 / 4, "Answer:", 57),
    "piqa": Entry(0, "acc,none", 1 / 2, "Question: "),
    "triviaqa": Entry(5, "exact_match,remove_whitespace", 0, "Question: "),
}
HC = {
    "arc_easy": Entry(0, "acc,none", 1 / 4, "Question: "),
    "copa": Entry(0, "acc,none", 1 / 2, "because"),
    "hellaswag": Entry(0, "acc_norm,none", 1 / 4, ": One Who"),
    "openbookqa": Entry(0, "acc_norm,none", 1 / 4, "test"),
    "piqa": Entry(0, "acc_norm,none", 1 / 2, "Question: "),
    "sciq": Entry(0, "acc,none", 1 / 4, "Question: "),
    "winogrande": Entry(0, "acc,none", 1 / 2, "because"),
}
ALTERNATIVES = {
    "bbh_fewshot": Entry(3, "exact_match,remove_whitespace", (6 / 2 + 21 / 3) / 27, "\nA:", 27),
    "gsm8k": Entry(8, "exact_match,strict-match", 0, "Question: "),
    "hendrycks_math": Entry(4, "exact_match,none", 0, "Problem: ", 7),
}
GROUPS = {
    "mhc_paper": (["mhc_paper"], MHC),
    "hc_paper": (["hc_paper"], HC),
    "alternatives": (
        ["mhc_paper_bbh_direct", "mhc_paper_gsm8k_train", "mhc_paper_math_hendrycks"],
        ALTERNATIVES,
    ),
}


class Asked(NamedTuple):
    outcome: Outcome
    summary: EvaluationSummary
    model: benchmark_rows.Knowing
    expected: dict[str, Entry]


@pytest.fixture(scope="module", params=GROUPS)
def asked(request: pytest.FixtureRequest) -> Iterator[Asked]:
    names, expected = GROUPS[request.param]
    model = benchmark_rows.Knowing()
    with pytest.MonkeyPatch.context() as patch:
        benchmark_rows.use(patch)
        outcome = ask(model, names, limit=2)
    known = known_baselines(toy.run_config(), outcome.samples)
    yield Asked(outcome, summarise(outcome, known, 0), model, expected)


def test_each_benchmark_has_one_score_in_the_papers_order(asked: Asked) -> None:
    assert list(asked.summary.tasks) == list(asked.expected)
    for name, entry in asked.expected.items():
        assert len(asked.summary.tasks[name].subtasks) == entry.parts
        assert asked.summary.tasks[name].n == 2 * max(entry.parts, 1)


def test_shots_and_metric_are_the_stated_ones(asked: Asked) -> None:
    found = {name: (score.shots, score.metric) for name, score in asked.summary.tasks.items()}
    assert found == {name: (entry.shots, entry.metric) for name, entry in asked.expected.items()}


def test_every_prompt_shows_as_many_examples_as_stated(asked: Asked) -> None:
    for name, entry in asked.expected.items():
        for task in asked.outcome.groups.get(name, [name]):
            for prompt in asked.model.prompts[task]:
                assert prompt.count(entry.mark) == entry.shots + 1, (task, prompt)


def test_a_model_that_knows_the_answers_scores_one(asked: Asked) -> None:
    """Not MATH with Minerva's scorer: what parses its formulas is stood in for here."""
    scores = {name: score.value for name, score in asked.summary.tasks.items() if name != "mhc_paper_math"}
    assert scores == dict.fromkeys(scores, 1.0)


def test_chance_is_known_for_every_benchmark(asked: Asked) -> None:
    for name, entry in asked.expected.items():
        assert asked.summary.tasks[name].chance == pytest.approx(entry.chance), name


def test_the_mean_counts_each_benchmark_once_whatever_its_parts(asked: Asked) -> None:
    values = [score.value for score in asked.summary.tasks.values()]
    assert len(values) < 10
    assert asked.summary.mean == pytest.approx(sum(values) / len(values))


@pytest.mark.parametrize("asked", ["mhc_paper"], indirect=True)
def test_drop_shows_answers_and_keeps_decimals(asked: Asked) -> None:
    for item in asked.outcome.samples["mhc_paper_drop"]:
        prompt, options = item["arguments"][0]
        assert prompt.count("Answer: ") == 3 and "number" not in prompt
        assert prompt.endswith(f"Passage: validation{item['doc_id']} fought\nQuestion: how many?\nAnswer:")
        assert options["until"] == ["\n"]
        assert item["f1"] == 1 and item["filtered_resps"] == [f"{item['doc_id']}.5"]


def test_lm_evals_own_drop_shows_field_names_as_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it is not used with examples; when this fails, it may be used again."""
    from lm_eval.tasks import TaskManager

    from mhc_bench.evaluation.tasks import lm_eval_root

    monkeypatch.setattr("datasets.load_dataset", benchmark_rows.load_dataset)
    task = TaskManager(include_path=lm_eval_root() / "drop", include_defaults=False).load(["drop"])["tasks"]
    stock = task["drop"]
    assert {"number", "date", "spans"} <= set(stock.doc_to_target(stock.validation_docs()[0]).split(","))


def test_groups_sum_up_their_parts(asked: Asked) -> None:
    for name in asked.outcome.groups:
        score: TaskScore = asked.summary.tasks[name]
        assert score.n == sum(part.n for part in score.subtasks.values())
        mean = sum(part.n * part.value for part in score.subtasks.values()) / score.n
        assert score.value == pytest.approx(mean)
        assert len(score.request_hash) == 64


def test_what_is_written_names_no_place_of_this_machine_and_is_read_again(
    asked: Asked, tmp_path: Path
) -> None:
    _write(asked.outcome, asked.summary, tmp_path)
    text = (tmp_path / "evaluation.json").read_text()
    sources = [task["metadata"]["config_source"] for task in json.loads(text)["configs"].values()]
    assert all(source.startswith(("lm_eval/tasks/", "mhc_paper/")) for source in sources)
    assert str(Path.home()) not in text and sys.prefix not in text and str(Path.cwd()) not in text
    assert read_summary(tmp_path) == asked.summary


@pytest.mark.parametrize(
    ("task", "question", "expected"),
    [
        ("bbh_cot_fewshot_date_understanding", "When?\nOptions:\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5", 1 / 5),
        ("bbh_fewshot_navigate", "Do you return?\nOptions:\n- Yes\n- No", 1 / 2),
        ("bbh_fewshot_boolean_expressions", "not ( True ) is", 1 / 2),
        ("bbh_cot_fewshot_word_sorting", "Sort: b a", 0),
        ("triviaqa", "", 0),
        ("hellaswag", "", None),
    ],
)
def test_chance_follows_from_the_answers_on_offer(task: str, question: str, expected: float | None) -> None:
    assert written_chance(task, [{"doc": {"input": question}}]) == expected

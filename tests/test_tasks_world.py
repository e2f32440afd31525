"""The lm-eval tasks of the world: right prompts, right counts, right scores, from any folder and offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from mhc_bench.config.schema import WorldConfig
from mhc_bench.data.world import FAMILIES, WorldSource, baselines, items, word_tokenizer
from mhc_bench.resources import PACKAGE, configs_dir, tasks_dir

WORLD = 3
CHOICE = {"hella", "mmlu", "piqa"}
SHOTS = {"trivia": 5, "mmlu": 5, "bbh": 3, "drop": 3, "hella": 4, "math": 4, "gsm": 2, "piqa": 0}
TOKENIZER = word_tokenizer()
LONGEST_ANSWER = {"trivia": 4, "drop": 6, "gsm": 26, "math": 20, "bbh": 4}


def manager(world_seed: int = WORLD) -> TaskManager:
    metadata: dict[str, Any] = {"world_seed": world_seed}
    return TaskManager(include_path=str(tasks_dir()), include_defaults=False, metadata=metadata)


class Oracle(LM):  # type: ignore[misc]
    """Answers with what `say` makes of the gold answer; keeps all prompts."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self._right, self.prompts = right, dict[str, list[str]]()

    def _note(self, request: Instance) -> None:
        self.prompts.setdefault(request.task_name, []).append(request.args[0])

    def loglikelihood(self, requests: Sequence[Instance], **_: Any) -> list[tuple[float, bool]]:
        for request in requests:
            self._note(request)
        rights = [(request.args[1].strip() == request.doc["gold"]) is self._right for request in requests]
        return [(float(right), right) for right in rights]

    def generate_until(self, requests: Sequence[Instance], **_: Any) -> list[str]:
        for request in requests:
            self._note(request)
        return [f" {request.doc['gold'] if self._right else 'again'} . <eos> total 7" for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: Any) -> list[float]:
        raise NotImplementedError


def _run(right: bool) -> tuple[dict[str, Any], Oracle]:
    oracle = Oracle(right)
    tasks = manager().load(["mhc_world"])
    return lm_eval.evaluate(oracle, tasks, limit=40, bootstrap_iters=0), oracle


@pytest.fixture(scope="module")
def perfect() -> tuple[dict[str, Any], Oracle]:
    return _run(right=True)


def _main(results: dict[str, Any], name: str) -> float:
    metric = "acc" if name in CHOICE else "f1" if name == "drop" else "exact_match"
    return float(results["results"][f"world_{name}"][f"{metric},none"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_perfect_model_scores_one(perfect: tuple[dict[str, Any], Oracle], name: str) -> None:
    assert _main(perfect[0], name) == 1


def test_a_model_that_is_always_wrong_scores_nothing() -> None:
    results, _ = _run(right=False)
    assert all(_main(results, name) == 0 for name in FAMILIES)


def test_each_type_of_question_has_its_own_score(perfect: tuple[dict[str, Any], Oracle]) -> None:
    for name in set(FAMILIES) - CHOICE - {"trivia"}:
        values = perfect[0]["results"][f"world_{name}"]
        for sub in {item.sub for item in items(name, WORLD)}:
            assert values[f"{sub},none"] == 1
        samples = perfect[0]["samples"][f"world_{name}"]
        assert {sample["doc"]["sub"] for sample in samples} == {item.sub for item in items(name, WORLD)}


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_documents_of_the_stream_and_fit_into_a_row(
    perfect: tuple[dict[str, Any], Oracle], name: str
) -> None:
    contexts = [item.context for item in items(name, WORLD)[:40]]
    prompts = list(dict.fromkeys(perfect[1].prompts[f"world_{name}"]))
    assert len(prompts) == len(contexts)
    for prompt, context in zip(prompts, contexts, strict=True):
        assert prompt.endswith(context)
        assert prompt.startswith("<eos> ")
        assert prompt.count(" . <eos> ") == prompt.count("<eos>") - 1 == SHOTS[name]
        assert len(TOKENIZER(prompt)["input_ids"]) == len(prompt.split())
        assert len(prompt.split()) + LONGEST_ANSWER.get(name, 2) <= 128


def test_shots_are_reported_as_shown(perfect: tuple[dict[str, Any], Oracle]) -> None:
    assert {name: perfect[0]["n-shot"][f"world_{name}"] for name in SHOTS} == SHOTS


@pytest.mark.parametrize("name", sorted(LONGEST_ANSWER))
def test_there_is_room_for_the_longest_answer(name: str) -> None:
    task = yaml.safe_load(
        (tasks_dir() / "world" / f"world_{name}.yaml").read_text().replace("!function ", "")
    )
    room = task["generation_kwargs"]["max_gen_toks"]
    assert room == LONGEST_ANSWER[name]
    assert max(len(f"{item.gold} .".split()) for item in items(name, WORLD)) <= room


def test_the_seed_of_the_world_reaches_the_tasks() -> None:
    one, other = (manager(seed).load(["world_trivia"])["tasks"]["world_trivia"] for seed in (1, WORLD))
    assert one.test_docs()["context"] != other.test_docs()["context"]
    assert list(other.test_docs()["context"]) == [item.context for item in items("trivia", WORLD)]


def test_chance_and_prior_exist_for_every_task() -> None:
    assert all(0 <= baselines(name, WORLD).prior <= 1 for name in FAMILIES)
    shipped = yaml.safe_load((configs_dir() / "evaluations" / "world.yaml").read_text())
    assert shipped["tasks"] == [f"world_{name}" for name in FAMILIES]
    group = yaml.safe_load((tasks_dir() / "world" / "mhc_world.yaml").read_text())
    assert group["task"] == shipped["tasks"]


def test_prompts_begin_as_rows_do() -> None:
    row = WorldSource(WorldConfig(world_seed=WORLD)).train_row(0, 0, 8)
    prompt = TOKENIZER(items("mmlu", WORLD)[0].context)["input_ids"]
    assert prompt[0] == row[0] == TOKENIZER.eos_token_id


@pytest.mark.long
def test_lm_eval_s_own_command_line_runs_the_group_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "dummy", "--tasks", "mhc_world"]
    command += ["--include_path", str(tasks_dir()), "--limit", "3", "--output_path", str(tmp_path)]
    offline = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONPATH": str(PACKAGE.parent),
    }
    subprocess.run(command, cwd=tmp_path, env=offline, check=True, capture_output=True)
    results = json.loads(next(tmp_path.rglob("results_*.json")).read_text())
    assert set(results["results"]) >= {f"world_{name}" for name in FAMILIES}

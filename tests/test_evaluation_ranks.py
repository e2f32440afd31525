"""Several ranks answer what one answers: the same prompts, items and order, scores up to rounding."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluation_toy as toy
import pytest
import torch.distributed as dist
from forked import KILLED, on_ranks
from lm_eval.api.instance import Instance

from mhc_bench.config import RunConfig
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation import EvaluationSummary, evaluate
from mhc_bench.evaluation.harness import ask, make_lm
from mhc_bench.evaluation.ranks import divided, joined, serve, shares
from mhc_bench.suite.evaluating import evaluate_run

TOLERANCE = 2e-4
"""Of a log-likelihood in nats: a batch padded to another length rounds its sums otherwise."""
NAMES = [toy.CHOICE, toy.GENERATION]
"""The worked examples of the first are drawn anew for each document, as in most of lm-eval's tasks."""

pytestmark = pytest.mark.ranks


@dataclasses.dataclass
class Answers:
    """The parts of lm-eval's outcome that can leave a process."""

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    gold: dict[str, list[float]]
    asked: dict[str, int]
    """Kind of request -> how many this rank's own model got."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_tasks(tmp_path_factory.mktemp("tasks"))


def on_each(tasks: Path, batch_size: int, limit: int | None = None) -> Callable[[int], Answers]:
    """What one of several ranks does; the ranks that only serve return empty answers."""

    def work(rank: int) -> Answers:
        dist.init_process_group("gloo")
        with joined() as ranks:
            own = make_lm(toy.model(), toy.tokenizer(), batch_size, "fp32")
            asked = counted(own)
            found = Answers({}, {}, {}, asked)
            if ranks.first:
                with divided(own, ranks) as lm:
                    outcome = ask(lm, NAMES, folder=tasks, metadata={"world_seed": 3}, limit=limit)
                found = Answers(outcome.results, outcome.samples, outcome.gold, asked)
            else:
                serve(own, ranks)
        return found

    return work


def counted(lm: Any) -> dict[str, int]:
    """Counts from now on what `lm` is asked."""
    asked = {"loglikelihood": 0, "generate_until": 0}
    for kind in asked:
        answer = getattr(lm, kind)

        def count(requests: list[Instance], kind: str = kind, answer: Any = answer, **rest: Any) -> Any:
            asked[kind] += len(requests)
            return answer(requests, **rest)

        setattr(lm, kind, count)
    return asked


@pytest.fixture(scope="module")
def alone(tasks: Path) -> Answers:
    ((code, answers),) = on_ranks(on_each(tasks, 64), 1)
    assert code == 0
    return answers


def same(found: Answers, expected: Answers) -> None:
    for name in NAMES:
        assert len(found.samples[name]) == len(expected.samples[name])
        for item, other in zip(found.samples[name], expected.samples[name], strict=True):
            for part in ("doc_id", "doc", "arguments", "doc_hash", "prompt_hash", "target", "metrics"):
                assert item[part] == other[part], part
            if name == toy.GENERATION:
                assert item["resps"] == other["resps"]
            else:
                near(item["resps"], other["resps"])
        assert found.gold[name] == pytest.approx(expected.gold[name], abs=TOLERANCE)
    assert found.results["n-samples"] == expected.results["n-samples"]
    assert found.results["results"] == expected.results["results"]


def near(found: Any, expected: Any) -> None:
    """Scores of all choices, and whether each is the greedy one."""
    for ((score, greedy),), ((other, other_greedy),) in zip(found, expected, strict=True):
        assert score == pytest.approx(other, abs=TOLERANCE) and greedy == other_greedy


@pytest.mark.parametrize(("world", "batch_size"), [(1, 1), (1, 7), (2, 1), (2, 7), (2, 64), (3, 7)])
def test_answers_depend_neither_on_the_ranks_nor_on_the_batch_size(
    tasks: Path, alone: Answers, world: int, batch_size: int
) -> None:
    ended = on_ranks(on_each(tasks, batch_size), world)
    assert [code for code, _ in ended] == [0] * world
    answers: list[Answers] = [found for _, found in ended]
    same(answers[0], alone)
    assert not any(found.samples for found in answers[1:])
    for kind, total in alone.asked.items():
        parts = [found.asked[kind] for found in answers]
        assert sum(parts) == total > 0  # nothing is asked twice
        assert max(parts) <= math.ceil(total / world) + 9  # three contexts of three choices


def test_more_ranks_than_questions_leave_some_without_work(tasks: Path) -> None:
    ended = on_ranks(on_each(tasks, 4, limit=1), 3)
    assert [code for code, _ in ended] == [0, 0, 0]
    assert [found.asked["generate_until"] for _, found in ended] == [1, 0, 0]
    assert [len(items) for items in ended[0][1].samples.values()] == [1, 1]


def test_every_request_has_one_rank_and_the_choices_of_a_context_stay_together() -> None:
    contexts = ["a" * (1 + 7 * number % 5) + str(number) for number in range(10)]
    pairs = [(context, f" {choice}") for context in contexts for choice in range(1 + len(context) % 3)]
    requests = [Instance("loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
    found = shares(requests, 3)
    assert sorted(place for share in found for place in share) == list(range(len(pairs)))
    owners = {context: set[int]() for context in contexts}
    for rank, share in enumerate(found):
        for place in share:
            owners[pairs[place][0]].add(rank)
    assert all(len(ranks) == 1 for ranks in owners.values())
    characters = [sum(len(pairs[place][0]) for place in set(share)) for share in found]
    assert max(characters) - min(characters) <= 3 * max(map(len, contexts))


def test_a_context_that_another_rank_cuts_is_reported_by_the_first(tasks: Path) -> None:
    def work(rank: int) -> list[str]:
        dist.init_process_group("gloo")
        model = toy.model()
        model.config.max_position_embeddings = 16 if rank else 64
        with joined() as ranks:
            own = make_lm(model, toy.tokenizer(), 8, "fp32")
            if ranks.first:
                with divided(own, ranks) as lm:
                    return ask(lm, [toy.CHOICE], folder=tasks, limit=8).warnings
            serve(own, ranks)
        return []

    (code, warnings), (other_code, _) = on_ranks(work)
    assert code == other_code == 0
    assert any("runcat" in message for message in warnings)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    run = toy.run_config("mhc", tasks=("world_piqa", "world_gsm"))
    run.evaluation.limit = 4
    run.hardware.sharding, run.hardware.devices = "fsdp", 2
    return run


@pytest.fixture(scope="module")
def run_dir(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy.trained(config, tmp_path_factory.mktemp("run"))
    (folder / "training.json").write_text(json.dumps(toy.TRAINING))
    return folder


def test_a_run_is_evaluated_by_all_ranks_of_its_launcher_into_the_same_files(
    config: RunConfig, run_dir: Path, tmp_path: Path
) -> None:
    def work(rank: int) -> EvaluationSummary:
        dist.init_process_group("gloo")
        return evaluate(config, run_dir, tmp_path / "two")

    one = evaluate(config, run_dir, tmp_path / "one")
    (code, first), (other_code, second) = on_ranks(work)
    assert code == other_code == 0
    assert first == second  # the first rank tells the others
    for name, score in one.tasks.items():
        found = first.tasks[name]
        assert (found.request_hash, found.n, found.value) == (score.request_hash, score.n, score.value)
        assert found.gold_loglikelihood == pytest.approx(score.gold_loglikelihood, abs=TOLERANCE)
    for name in one.tasks:
        lines, others = (
            (tmp_path / place / "samples" / f"{name}.jsonl").read_text().splitlines()
            for place in ("one", "two")
        )
        asked, again = ([json.loads(line) for line in each] for each in (lines, others))
        assert [item["arguments"] for item in asked] == [item["arguments"] for item in again]
        assert [item["filter"] for item in asked] == [item["filter"] for item in again]
    content, other = (
        json.loads((tmp_path / place / "evaluation.json").read_text()) for place in ("one", "two")
    )
    assert content.keys() == other.keys() and content["configs"] == other["configs"]
    assert not (run_dir / "progress.json").exists()


def test_a_rank_that_fails_ends_the_others(tasks: Path) -> None:
    def work(rank: int) -> None:
        dist.init_process_group("gloo")
        with joined() as ranks:
            own = make_lm(toy.model(), toy.tokenizer(), 8, "fp32")
            if ranks.first:
                with divided(own, ranks) as lm:
                    ask(lm, [toy.CHOICE], folder=tasks, limit=4)
            own.loglikelihood = None
            serve(own, ranks)

    (code, _), (other_code, _) = on_ranks(work)
    assert other_code == 1 and code in (1, KILLED)


def test_what_cannot_be_asked_is_refused_before_ranks_are_started(config: RunConfig, run_dir: Path) -> None:
    wrong = dataclasses.replace(config.evaluation, tasks=["world_pica"])
    with pytest.raises(UsageError, match="did you mean 'world_piqa'"):
        evaluate_run(dataclasses.replace(config, evaluation=wrong), run_dir, run_dir / "wrong")
    assert not (run_dir / "wrong").exists()


@pytest.mark.slow
def test_a_rank_that_was_started_here_fails_with_one_line(
    config: RunConfig, run_dir: Path, tmp_path: Path
) -> None:
    weights = run_dir / "checkpoints" / "final" / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-4] + b"\xff" * 4)
        with pytest.raises(RunError, match=r"rank . of mhc seed 0: .*damaged") as caught:
            evaluate_run(config, run_dir, tmp_path / "out")
    finally:
        weights.write_bytes(whole)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

"""lm-eval on a model in memory: the same answers as one unpadded forward pass per item, quietly, offline."""

from __future__ import annotations

import socket
from pathlib import Path

import evaluation_toy as toy
import pytest
import torch

from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation import check_tasks, task_names
from mhc_bench.evaluation.harness import Outcome
from mhc_bench.evaluation.scores import summarise

NAMES = [toy.CHOICE, toy.GENERATION]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_tasks(tmp_path_factory.mktemp("tasks"))


def ask(tasks: Path, *, batch_size: int = 32, world_seed: int = 3, limit: int | None = None) -> Outcome:
    return toy.run_tasks(
        toy.model(),
        NAMES,
        folder=tasks,
        metadata={"world_seed": world_seed},
        batch_size=batch_size,
        limit=limit,
    )


@pytest.fixture(scope="module")
def outcome(tasks: Path) -> Outcome:
    return ask(tasks)


def loglikelihood(context: str, continuation: str) -> float:
    """Sum of the continuation's token log-probabilities, from one unpadded row."""
    encode = toy.tokenizer().encode
    before, after = encode(context), encode(continuation)
    with torch.no_grad():
        logits = toy.model()(torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(before) + i - 1, token]) for i, token in enumerate(after))


def greedy(context: str, longest: int) -> str:
    """Greedy continuation without a cache or padding, up to a stop word."""
    net, words = toy.model(), toy.tokenizer()
    tokens = words.encode(context)
    said: list[str] = []
    for _ in range(longest):
        with torch.no_grad():
            token = int(net(torch.tensor([tokens])).logits[0, -1].argmax())
        if toy.WORDS[token] in (".", "<eos>"):
            break
        tokens.append(token)
        said.append(toy.WORDS[token])
    return " ".join(word for word in said if word != "<pad>")


def test_items_come_from_the_world_that_was_asked_for(outcome: Outcome) -> None:
    asked = [item["doc"]["context"] for item in outcome.samples[toy.GENERATION]]
    assert asked == [row["context"] for row in toy.rows(3)]
    assert asked != [row["context"] for row in toy.rows(0)]


def test_choice_loglikelihoods_equal_unpadded_forward_passes(outcome: Outcome) -> None:
    for item in outcome.samples[toy.CHOICE]:
        for (context, choice), reply in zip(item["arguments"], item["resps"], strict=True):
            assert reply[0][0] == pytest.approx(loglikelihood(context, choice), abs=2e-4)


def test_generation_in_padded_batches_equals_unpadded_greedy_decoding(outcome: Outcome) -> None:
    """Left padding that the attention mask does not hide would change most of these."""
    lengths = {len(item["doc"]["context"].split()) for item in outcome.samples[toy.GENERATION]}
    assert len(lengths) > 5
    items = outcome.samples[toy.GENERATION]
    said = {item["arguments"][0][0]: item["filtered_resps"][0] for item in items}
    assert said == {context: greedy(context, 5) for context in said}
    assert len(set(said.values())) > 10


def test_the_batch_size_changes_no_result(tasks: Path, outcome: Outcome) -> None:
    single = ask(tasks, batch_size=1)
    for name in NAMES:
        for one, many in zip(single.samples[name], outcome.samples[name], strict=True):
            assert one["doc"] == many["doc"]
            assert one["filtered_resps"] == many["filtered_resps"] or name == toy.CHOICE
        assert single.gold[name] == pytest.approx(outcome.gold[name], abs=2e-4)
    assert summarise(single, {}, 0).mean == summarise(outcome, {}, 0).mean


def test_gold_loglikelihood_is_scored_for_choices_and_for_generation(outcome: Outcome) -> None:
    items = outcome.samples[toy.GENERATION]
    expected = [loglikelihood(item["arguments"][0][0], item["doc"]["answer"]) for item in items]
    assert outcome.gold[toy.GENERATION] == pytest.approx(expected, abs=2e-4)
    chosen = [item["resps"][item["doc"]["gold"]][0][0] for item in outcome.samples[toy.CHOICE]]
    assert outcome.gold[toy.CHOICE] == chosen


def test_the_limit_takes_items_from_the_start(tasks: Path, outcome: Outcome) -> None:
    few = ask(tasks, limit=4)
    for name in NAMES:
        assert [item["doc"] for item in few.samples[name]] == [
            item["doc"] for item in outcome.samples[name][:4]
        ]


def test_nothing_is_printed_and_no_connection_is_opened(
    tasks: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("evaluation opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    capfd.readouterr()
    ask(tasks, limit=4)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


def test_progress_reaches_the_number_of_requests(tasks: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    toy.run_tasks(
        toy.model(),
        [toy.CHOICE],
        folder=tasks,
        limit=4,
        on_progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert ("Running loglikelihood requests", 12, 12) in seen


def test_a_context_that_does_not_fit_is_reported(tasks: Path) -> None:
    short = toy.model()
    short.config.max_position_embeddings = 16
    cut = toy.run_tasks(short, [toy.CHOICE], folder=tasks, limit=8)
    assert any("runcat" in message for message in cut.warnings)


def test_data_that_is_not_on_this_machine_is_named(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text(
        "task: far\ndataset_path: no-such-owner/no-such-set\noutput_type: multiple_choice\n"
        "test_split: test\ndoc_to_text: a\ndoc_to_choice: b\ndoc_to_target: c\nmetadata: {version: 1}\n"
    )
    with pytest.raises(RunError, match=r"cannot evaluate far: .*no-such-owner/no-such-set"):
        toy.run_tasks(toy.model(), ["far"], folder=tmp_path)


def test_an_unknown_task_is_refused_with_the_nearest_one(tasks: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown evaluation task 'toy_choise'.*did you mean 'toy_choice'"):
        check_tasks(["toy_choise"], tasks)


def test_a_task_named_twice_is_refused(tasks: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        check_tasks([toy.CHOICE, toy.CHOICE], tasks)


def test_tasks_and_groups_are_listed_without_loading_them(tmp_path: Path) -> None:
    (tmp_path / "group.yaml").write_text("group: both\ntask: [one, two]\n")
    (tmp_path / "one.yaml").write_text("task: one\ncustom_dataset: !function missing.load\n")
    (tmp_path / "base.yaml").write_text("output_type: multiple_choice\n")
    assert sorted(task_names(tmp_path)) == ["both", "one"]

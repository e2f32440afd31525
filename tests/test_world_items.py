"""Test items: how many, in which order, how they are scored, and what guessing scores."""

from __future__ import annotations

from collections import Counter

import pytest
from world_oracle import documents

from mhc_bench.data.world import FAMILIES, baselines, exact_match, final_answer, items, shots, token_f1
from mhc_bench.errors import UsageError

WORLD = 3
CHOICE = {"hella": 4, "mmlu": 4, "piqa": 2}
SHOTS = {"trivia": 5, "mmlu": 5, "bbh": 3, "drop": 3, "hella": 4, "math": 4, "gsm": 2, "piqa": 0}


@pytest.mark.parametrize("name", FAMILIES)
def test_items_are_distinct_many_and_in_a_fixed_order(name: str) -> None:
    found = items(name, WORLD)
    assert len({item.context for item in found}) == len(found)
    assert 200 <= len(found) <= 1000
    items.cache_clear()
    assert items(name, WORLD) == found


@pytest.mark.parametrize("name", FAMILIES)
def test_types_of_question_take_turns(name: str) -> None:
    found = items(name, WORLD)
    totals = Counter(item.sub for item in found)
    for limit in (50, 100):
        counts = Counter(item.sub for item in found[:limit])
        # a type lags behind only where all of its items have come
        open_ones = [counts[sub] for sub in totals if counts[sub] < totals[sub]]
        assert max(counts.values()) - min(open_ones) <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_with_examples_and_answers_fit_into_a_row(name: str) -> None:
    examples = shots(name, WORLD, SHOTS[name])
    assert len(examples) == SHOTS[name]
    before = sum(len(f"<eos> {text} .".split()) for text in examples)
    longest = max(len(f"{item.context} {item.gold} .".split()) for item in items(name, WORLD))
    assert before + longest <= 128


def test_too_many_examples_are_refused() -> None:
    with pytest.raises(UsageError, match="5 examples of hella"):
        shots("hella", WORLD, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_choices_hold_the_right_answer_once(name: str) -> None:
    for item in items(name, WORLD):
        assert item.context.startswith("<eos> ")
        assert len(item.choices) == CHOICE.get(name, 0)
        assert item.choices.count(item.gold) == (1 if item.choices else 0)


def test_the_right_choice_has_no_favourite_place() -> None:
    for name, count in CHOICE.items():
        places = Counter(item.choices.index(item.gold) for item in items(name, WORLD) if name != "mmlu")
        assert all(abs(n * count / len(items(name, WORLD)) - 1) < 0.35 for n in places.values())


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'trivia'"):
        items("trivai", WORLD)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 - 8 = 1 ; total 1 . <eos> x", "1"),
        ("ramaer .", "ramaer"),
        ("gita volu", "gita volu"),
        ("total 3 ; total 12", "12"),
        ("total", ""),
        ("", ""),
    ],
)
def test_the_scored_part_of_an_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_exact_match_wants_the_whole_answer_and_f1_gives_part_marks() -> None:
    assert exact_match("12", "1 + 11 = 12 ; total 12 .") == 1
    assert exact_match("12", "12 = total 1 .") == 0
    assert exact_match("gita volu", "gita") == 0
    assert token_f1("gita volu", "gita") == pytest.approx(2 / 3)
    assert token_f1("gita volu", "volu gita .") == 1
    assert token_f1("gita", "gita gita") == pytest.approx(2 / 3)
    assert token_f1("gita", "bun") == token_f1("gita", "") == 0


def test_chance_is_that_of_a_uniform_guess() -> None:
    for name, count in CHOICE.items():
        assert baselines(name, WORLD).chance == pytest.approx(1 / count)
    puzzles = baselines("bbh", WORLD).subs
    assert puzzles["bool"][0] == 1 / 2
    assert puzzles["dyck"][0] == puzzles["track"][0] == pytest.approx(1 / 3)
    assert baselines("trivia", WORLD).chance == pytest.approx(1 / 20, rel=0.15)


def test_the_prior_is_what_the_most_frequent_training_answers_score() -> None:
    counts = Counter((words[1], words[6]) for words in documents(WORLD, 8, 2000) if words[0] == "question")
    best = {sub: max((n, answer) for (s, answer), n in counts.items() if s == sub)[1] for sub, _ in counts}
    asked = items("trivia", WORLD)
    scored = sum(best[item.sub] == item.gold for item in asked) / len(asked)
    assert baselines("trivia", WORLD).prior == pytest.approx(scored, abs=0.02)


@pytest.mark.parametrize("name", FAMILIES)
def test_constant_answers_score_little_more_than_chance(name: str) -> None:
    guess = baselines(name, WORLD)
    assert 0 <= guess.prior <= guess.chance + 0.1
    assert set(guess.subs) == {item.sub for item in items(name, WORLD)}


def test_baselines_can_be_those_of_the_first_items() -> None:
    asked = items("drop", WORLD)[:10]
    assert set(baselines("drop", WORLD, limit=10).subs) == {item.sub for item in asked}

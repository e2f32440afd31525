"""Test items in their fixed order, worked examples for the prompt, and what guessing would score."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from statistics import fmean
from typing import NamedTuple

from mhc_bench.data.world.draws import Draws, digest
from mhc_bench.data.world.family import Item
from mhc_bench.data.world.scoring import score, token_f1
from mhc_bench.data.world.stream import FAMILIES, Stream, family
from mhc_bench.errors import UsageError, choose

LARGEST = 1000
"""Most items of a family."""
PARTIAL = "drop"
"""The family whose score is F1 over words."""
ROW = 128
"""Tokens that a prompt and its answer may take: what the models of the suites are trained on."""
_ATTEMPTS = 100  # draws of worked examples before giving up
_SURVEY = 4000  # training questions from which the best constant answer is learned


@cache
def items(name: str, world_seed: int, scale: int = 1) -> tuple[Item, ...]:
    """The test of family `name`: distinct contexts with held-out keys, up to 1000 of them, in a fixed order.

    The types of question take turns, so every beginning of the test is balanced as far as there are items.

    Raises:
        UsageError: for an unknown family.
    """
    choose("family", name, FAMILIES)
    distinct = {item.context: item for item in family(name, world_seed, scale).held_out_items()}
    by_digest = sorted(distinct.values(), key=lambda item: digest("order", item.context))
    turns: Counter[str] = Counter()
    places: dict[str, tuple[int, str]] = {}
    for item in by_digest:
        places[item.context] = (turns[item.sub], item.sub)
        turns[item.sub] += 1
    return tuple(sorted(by_digest, key=lambda item: places[item.context])[:LARGEST])


def shots(name: str, world_seed: int, count: int, scale: int = 1) -> tuple[str, ...]:
    """`count` documents of the training stream, without `<eos>` and the closing `.`: the same for every item.

    They are the first successive documents that leave room for the longest question in a row of 128 tokens.

    Raises:
        UsageError: where so many documents leave no room.
    """
    stream, draws = Stream(world_seed, scale), Draws("shots", world_seed, name)
    room = ROW - max(len(f"{item.context} {item.gold} .".split()) for item in items(name, world_seed, scale))
    for _ in range(_ATTEMPTS):
        documents = [stream.document(name, draws) for _ in range(count)]
        if sum(1 + len(words) for words in documents) <= room:
            return tuple(" ".join(words[:-1]) for words in documents)
    raise UsageError(f"{count} examples of {name} do not fit into {ROW} tokens together with a question")


class Baseline(NamedTuple):
    """Scores that need no model, as fractions.

    `chance` is that of a uniform guess: among the choices, or, where the answer is generated, among the
    answers that the context names, or else among those that the type of question has in training. `prior` is
    that of the best constant answer of each type of question, learned from training questions. `subs` holds
    (chance, prior) by type of question.
    """

    chance: float
    prior: float
    subs: dict[str, tuple[float, float]]


@cache
def baselines(name: str, world_seed: int, scale: int = 1, limit: int | None = None) -> Baseline:
    """Chance and prior on the first `limit` items of the test (all, if None).

    Raises:
        UsageError: for an unknown family.
    """
    asked = items(name, world_seed, scale)[:limit]
    survey = _survey(name, world_seed, scale)
    guesses = {sub: _best_constant(name, answers) for sub, answers in survey.items()}
    chances, priors = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for item in asked:
        chances[item.sub].append(_chance(name, item, survey[item.sub]))
        priors[item.sub].append(_prior(name, item, survey[item.sub], guesses[item.sub]))
    subs = {sub: (fmean(chances[sub]), fmean(priors[sub])) for sub in sorted(chances)}
    return Baseline(_mean_of_all(chances), _mean_of_all(priors), subs)


def _mean_of_all(values: dict[str, list[float]]) -> float:
    return fmean(value for part in values.values() for value in part)


def _survey(name: str, world_seed: int, scale: int) -> dict[str, Counter[str]]:
    """How often each answer is right, by type of question, over questions with training keys."""
    draws, counts = Draws("survey", world_seed, name), defaultdict[str, Counter[str]](Counter)
    for _ in range(_SURVEY):
        item = family(name, world_seed, scale).training_item(draws)
        counts[item.sub][item.answer] += 1
    return counts


def _best_constant(name: str, answers: Counter[str]) -> str:
    """The answer of training questions with the best mean score over them."""
    if name != PARTIAL:
        return answers.most_common(1)[0][0]
    frequent = [answer for answer, _ in answers.most_common(40)]
    return max(frequent, key=lambda guess: sum(token_f1(right, guess) * n for right, n in answers.items()))


def _prior(name: str, item: Item, answers: Counter[str], guess: str) -> float:
    """The score of the constant answer; with choices, that of the one most often right in training."""
    if item.choices:
        best = max(answers[choice] for choice in item.choices)
        leaders = [choice for choice in item.choices if answers[choice] == best]
        return float(item.gold in leaders) / len(leaders)
    return score(item, guess, partial=name == PARTIAL)


def _chance(name: str, item: Item, answers: Counter[str]) -> float:
    """The expected score of a uniform guess."""
    if item.choices:
        return 1 / len(item.choices)
    return fmean(score(item, answer, partial=name == PARTIAL) for answer in item.guesses or answers)

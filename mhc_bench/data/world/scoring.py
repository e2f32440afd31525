"""How an answer is scored."""

from __future__ import annotations

from collections import Counter

from mhc_bench.data.world.family import Item


def final_answer(text: str) -> str:
    """The scored part of a generated answer: what follows the last `total`, or all; never past a `.`."""
    words = text.split(".")[0].split()
    if "total" in words:
        words = words[len(words) - words[::-1].index("total") :]
    return " ".join(words)


def exact_match(answer: str, predicted: str) -> float:
    """1 where the scored part of `predicted` is `answer`, word for word; else 0."""
    return float(final_answer(predicted) == answer)


def token_f1(answer: str, predicted: str) -> float:
    """Harmonic mean of precision and recall of the words, as DROP and SQuAD count them."""
    given, right = Counter(final_answer(predicted).split()), Counter(answer.split())
    shared = (given & right).total()
    return 2 * shared / (given.total() + right.total()) if shared else 0.0


def score(item: Item, predicted: str, *, partial: bool = False) -> float:
    """The score of one answer; `partial` gives F1."""
    return (token_f1 if partial else exact_match)(item.answer, predicted)

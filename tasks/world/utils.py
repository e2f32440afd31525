"""What the task files of the embedded world share: test items, worked examples and scores."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from mhc_bench.data.world import exact_match, items, shots, token_f1

KINDS = {
    "bbh": ("track", "dyck", "bool", "hop"),
    "drop": ("get", "item", "who", "most", "count"),
    "gsm": ("s1", "s2", "s3"),
    "math": ("d1", "d2"),
    "piqa": ("use", "avoid"),
}
"""Families whose types of question get a score of their own."""


def load(
    family: str, world_seed: int = 0, scale: int = 1, examples: int = 0, **_others: object
) -> dict[str, Dataset]:
    """The splits `test` and `examples` of one family.

    Args:
        family: Its name; the task's file says it.
        world_seed, scale: Which world; lm-eval's `--metadata '{"world_seed": 1}'` sets them.
        examples: How many worked examples the task shows.
        _others: What else lm-eval keeps among a task's metadata: its version, the model's arguments.
    """
    test = [
        {
            "context": item.context,
            "gold": item.gold,
            "answer": item.answer,
            "choices": list(item.choices),
            "sub": item.sub if family in KINDS else None,
        }
        for item in items(family, world_seed, scale)
    ]
    worked = [_worked(text) for text in shots(family, world_seed, examples or 1, scale)]
    return {"test": Dataset.from_list(test), "examples": Dataset.from_list(worked)}


def _worked(document: str) -> dict[str, Any]:
    """A whole training document as an example; lm-eval wants it in two parts, so it is cut after a word."""
    first, rest = document.split(" ", 1)
    return {"context": f"<eos> {first}", "gold": rest, "answer": rest, "choices": [rest], "sub": None}


def score_exact(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Exact match of the scored part of the answer, once for the task and once for the type of question."""
    value = exact_match(doc["answer"], results[0])
    return {"exact_match": value} | ({doc["sub"]: value} if doc["sub"] else {})


def score_words(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """F1 over words, and exact match; the type of question gets F1."""
    value = token_f1(doc["answer"], results[0])
    return {"f1": value, "exact_match": exact_match(doc["answer"], results[0]), doc["sub"]: value}

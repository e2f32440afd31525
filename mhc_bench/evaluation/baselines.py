"""What guessing would score: the yardstick beside every downstream number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mhc_bench.config import RunConfig, WorldConfig
from mhc_bench.data.world import FAMILIES, baselines

WORLD_PREFIX = "world_"
"""A family's task is called by this and its name."""
OPEN_ANSWERS = ("mhc_paper_drop", "gsm8k", "minerva_math_", "hendrycks_math_", "triviaqa")
"""Beginnings of tasks whose answers are written out: nothing to guess among, so that chance is 0."""
BBH = re.compile(r"bbh_(?:cot_)?(?:fewshot|zeroshot)_(\w+)")
BBH_TWO_ANSWERS = frozenset(
    {
        "boolean_expressions",
        "causal_judgement",
        "formal_fallacies",
        "navigate",
        "sports_understanding",
        "web_of_lies",
    }
)
"""Puzzles of BBH answered by yes or no, True or False, valid or invalid; some say so in words only."""
_OPTION = re.compile(r"^\([A-Z]\)", flags=re.MULTILINE)


@dataclass(frozen=True)
class Baselines:
    """Scores that need no model, as fractions; null where nobody has said."""

    chance: float | None = None
    """Expected score of a uniform guess."""
    prior: float | None = None
    """Score of the best constant answer, learned from training documents."""
    kinds: Mapping[str, Baselines] = field(default_factory=dict)
    """The same for each kind of item within the task."""


def known_baselines(
    config: RunConfig, samples: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Baselines]:
    """Baselines of tasks by name, on the items asked.

    Known are the tasks about the world that a run was trained on, and the shipped ones whose answers are
    written out. For tasks with choices lm-eval's requests tell chance: see `scores.uniform_chance`.
    """
    families = {f"{WORLD_PREFIX}{name}": name for name in FAMILIES}
    known = {name: Baselines(chance=written_chance(name, items)) for name, items in samples.items()}
    if isinstance(config.data, WorldConfig):
        for task in families.keys() & samples.keys():
            known[task] = _world(families[task], config.data, config.evaluation.limit)
    return known


def written_chance(task: str, items: Sequence[Mapping[str, Any]]) -> float | None:
    """Expected score of a uniform guess among the answers that a prompt offers; None for other tasks."""
    if task.startswith(OPEN_ANSWERS):
        return 0.0
    puzzle = BBH.fullmatch(task)
    if puzzle is None:
        return None
    return sum(_bbh_chance(puzzle[1], item["doc"]["input"]) for item in items) / len(items)


def _bbh_chance(puzzle: str, question: str) -> float:
    """Puzzles offer lettered options, or two answers, or none."""
    options = 2 if puzzle in BBH_TWO_ANSWERS else len(_OPTION.findall(question))
    return 1 / options if options else 0.0


def _world(family: str, world: WorldConfig, limit: int | None) -> Baselines:
    found = baselines(family, world.world_seed, world.scale, limit)
    kinds = {kind: Baselines(chance, prior) for kind, (chance, prior) in found.subs.items()}
    return Baselines(found.chance, found.prior, kinds)

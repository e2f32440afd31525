"""The embedded world: a seeded procedural language with eight families of questions. See `docs/world.md`."""

from __future__ import annotations

from mhc_bench.data.world.family import Item
from mhc_bench.data.world.lexicon import vocabulary
from mhc_bench.data.world.scoring import exact_match, final_answer, token_f1
from mhc_bench.data.world.source import WorldSource
from mhc_bench.data.world.stream import FAMILIES
from mhc_bench.data.world.testset import Baseline, baselines, items, shots
from mhc_bench.data.world.tokenizer import word_tokenizer

__all__ = [
    "FAMILIES",
    "Baseline",
    "Item",
    "WorldSource",
    "baselines",
    "exact_match",
    "final_answer",
    "items",
    "shots",
    "token_f1",
    "vocabulary",
    "word_tokenizer",
]

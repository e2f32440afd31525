"""What guessing would score: the yardstick beside every downstream number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mhc_bench.config import DataConfig, WorldConfig


@dataclass(frozen=True)
class Baselines:
    """Scores that need no model, as fractions; null where nobody has said."""

    chance: float | None = None
    """Expected score of a uniform guess."""
    prior: float | None = None
    """Score of the best constant answer, learned from training documents."""
    kinds: Mapping[str, Baselines] = field(default_factory=dict)
    """The same for each kind of item within the task."""


def known_baselines(data: DataConfig) -> dict[str, Baselines]:
    """Baselines by task name, for the tasks that belong to the data that a run was trained on."""
    if not isinstance(data, WorldConfig):
        return {}
    raise NotImplementedError

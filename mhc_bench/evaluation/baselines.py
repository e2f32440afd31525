"""What guessing would score: the yardstick beside every downstream number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mhc_bench.config import RunConfig, WorldConfig
from mhc_bench.data.world import FAMILIES, baselines

WORLD_PREFIX = "world_"
"""A family's task is called by this and its name."""


@dataclass(frozen=True)
class Baselines:
    """Scores that need no model, as fractions; null where nobody has said."""

    chance: float | None = None
    """Expected score of a uniform guess."""
    prior: float | None = None
    """Score of the best constant answer, learned from training documents."""
    kinds: Mapping[str, Baselines] = field(default_factory=dict)
    """The same for each kind of item within the task."""


def known_baselines(config: RunConfig, tasks: Iterable[str]) -> dict[str, Baselines]:
    """Baselines of those `tasks` that are about the world that a run was trained on, on the items asked."""
    families = {f"{WORLD_PREFIX}{name}": name for name in FAMILIES}
    if not isinstance(config.data, WorldConfig):
        return {}
    return {
        task: _world(families[task], config.data, config.evaluation.limit)
        for task in tasks
        if task in families
    }


def _world(family: str, world: WorldConfig, limit: int | None) -> Baselines:
    found = baselines(family, world.world_seed, world.scale, limit)
    kinds = {kind: Baselines(chance, prior) for kind, (chance, prior) in found.subs.items()}
    return Baselines(found.chance, found.prior, kinds)

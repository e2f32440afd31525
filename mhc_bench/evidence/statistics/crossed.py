"""Seeds crossed with items: every seed's runs answer the same items, so each has an error of its own.

A pair of runs differs on an item by d[s, i] = mean + seed[s] + item[i] + rest[s, i], the last three random: a
two-way layout without repetition (Searle, Casella and McCulloch, Variance Components, 1992). The variance of
the mean over S seeds and I items is then seed/S + item/I + rest/(S I): more seeds never reduce the item part.
The mean over T tasks is a mean over strata: seeds are shared by all tasks, items belong to one each, so the
tasks' item shares add up, over T squared. Shapes: `S I`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mhc_bench.evidence.statistics.paired import LEVEL, ROUNDING, t_quantile

Differences = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True)
class CrossedMean:
    """The mean of paired differences over tasks, seeds and items, and what it is uncertain by."""

    seeds: int
    items: int
    """Of all tasks."""
    mean: float
    """Every task counts the same, however many items it has."""
    seed_sd: float
    """Between seeds, the items' share taken out: 0 where the items alone explain the spread."""
    seed_error: float
    """Standard error of the mean for *these items*, from new seeds alone: that of the t interval by seed."""
    item_error: float
    """What other items would add to it: a second standard error, to be added in squares."""
    document_error: float
    """Standard error over the items of one pair's difference: what one pair alone is uncertain by."""
    same_items: tuple[float, float]
    """The 95 % interval for new seeds on these items: Student's, S - 1 degrees of freedom."""
    new_items: tuple[float, float]
    """The 95 % interval for new seeds on new items of the same kind, never narrower than the one above."""


@dataclass(frozen=True)
class Crossed(CrossedMean):
    """The same of a single task, with its other variance components."""

    item_sd: float
    """Between items, the seeds' share taken out: how much harder some items are for one of the two."""
    rest_sd: float
    """What seed and item together leave: single answers that went the other way."""


def crossed(differences: Differences) -> Crossed | None:
    """Seed and item errors of one task's paired differences [S, I].

    None for fewer than two seeds or items, and where all seeds agree exactly on a difference: certainty that
    few seeds cannot give.

    Raises:
        ValueError: a value that is not finite.
    """
    found = crossed_mean([differences])
    if found is None:
        return None
    by_item, rest = _mean_squares(differences)
    item_sd = math.sqrt(max(0.0, by_item - rest) / found.seeds)
    return Crossed(**asdict(found), item_sd=item_sd, rest_sd=math.sqrt(rest))


def crossed_mean(tasks: Sequence[Differences]) -> CrossedMean | None:
    """Seed and item errors of the mean over tasks: differences [S, I] of each, the same seeds in all.

    None as `crossed`: for any task with fewer than two seeds or items.

    Raises:
        ValueError: a value that is not finite, or tasks with different numbers of seeds.
    """
    if not all(np.isfinite(each).all() for each in tasks):
        raise ValueError("differences must be finite")
    by_seed = np.mean([each.mean(axis=1) for each in tasks], axis=0)
    seeds, mean = len(by_seed), float(by_seed.mean())
    if min(seeds, *(each.shape[1] for each in tasks)) < 2:
        return None
    spread = float(by_seed.var(ddof=1))
    if mean != 0 and math.sqrt(spread) <= ROUNDING * abs(mean):
        return None
    shares = [_share(each, len(tasks)) for each in tasks]
    item_share = sum(share.item for share in shares)
    half_same = t_quantile(LEVEL, seeds - 1) * math.sqrt(spread / seeds)
    half_new = t_quantile(LEVEL, _freedom(spread, shares, seeds)) * math.sqrt(spread / seeds + item_share)
    return CrossedMean(
        seeds,
        sum(each.shape[1] for each in tasks),
        mean,
        seed_sd=math.sqrt(max(0.0, spread - sum(share.rest for share in shares))),
        seed_error=math.sqrt(spread / seeds),
        item_error=math.sqrt(item_share),
        document_error=math.sqrt(sum(share.item + share.rest for share in shares)),
        same_items=(mean - half_same, mean + half_same),
        new_items=(mean - max(half_same, half_new), mean + max(half_same, half_new)),
    )


@dataclass(frozen=True)
class _Share:
    """What one of T tasks adds to the variance of the mean over tasks."""

    item: float
    """By its items, whatever the number of seeds; 0 where none was seen."""
    rest: float
    """By single answers, for one pair."""
    parts: tuple[tuple[float, int], ...]
    """The estimates that `item` is made of, with their degrees of freedom."""


def _share(differences: Differences, tasks: int) -> _Share:
    seeds, items = differences.shape
    by_item, rest = _mean_squares(differences)
    weight = 1 / (seeds * items * tasks**2)
    # an estimate below 0 means that none was seen
    seen = by_item > rest
    parts = ((by_item * weight, items - 1), (rest * weight, (seeds - 1) * (items - 1))) if seen else ()
    return _Share((by_item - rest) * weight if seen else 0.0, rest * weight * seeds, parts)


def _mean_squares(differences: Differences) -> tuple[float, float]:
    """Between items, and what seeds and items leave."""
    seeds, items = differences.shape
    centred = differences - differences.mean()
    of_seeds, of_items = centred.mean(axis=1), centred.mean(axis=0)
    left = centred - of_seeds[:, None] - of_items[None, :]
    return (
        seeds * float((of_items**2).sum()) / (items - 1),
        float((left**2).sum()) / ((seeds - 1) * (items - 1)),
    )


def _freedom(spread: float, shares: Sequence[_Share], seeds: int) -> float:
    """Degrees of freedom of the seeds' and all items' shares together (Satterthwaite, 1946)."""
    parts = [(spread / seeds, seeds - 1), *(part for share in shares for part in share.parts)]
    total = spread / seeds + sum(share.item for share in shares)
    squares = sum(value**2 / freedom for value, freedom in parts)
    return total**2 / squares if squares else seeds - 1

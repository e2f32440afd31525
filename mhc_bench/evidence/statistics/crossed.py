"""Seeds crossed with items: every seed's runs answer the same items, so each has an error of its own.

A pair of runs differs on an item by d[s, i] = mean + seed[s] + item[i] + rest[s, i], the last three random: a
two-way layout without repetition (Searle, Casella and McCulloch, Variance Components, 1992). The variance of
the mean over S seeds and I items is then seed/S + item/I + rest/(S I): more seeds never reduce the item part.
Shapes: `S I`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mhc_bench.evidence.statistics.paired import LEVEL, ROUNDING, t_quantile

Differences = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Crossed:
    """The mean of paired differences over seeds and items, and what it is uncertain by."""

    seeds: int
    items: int
    mean: float
    seed_sd: float
    """Between seeds, the items' share taken out: 0 where the items alone explain the spread."""
    item_sd: float
    """Between items, the seeds' share taken out: how much harder some items are for one of the two."""
    rest_sd: float
    """What seed and item together leave: single answers that went the other way."""
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


def crossed(differences: Differences) -> Crossed | None:
    """Seed and item errors of paired differences [S, I].

    None for fewer than two seeds or items, and where all seeds agree exactly on a difference: certainty that
    few seeds cannot give.

    Raises:
        ValueError: a value that is not finite.
    """
    if not np.isfinite(differences).all():
        raise ValueError("differences must be finite")
    seeds, items = differences.shape
    if min(seeds, items) < 2:
        return None
    mean = float(differences.mean())
    by_seed, by_item, rest = _mean_squares(differences)
    cells = seeds * items
    if mean != 0 and math.sqrt(by_seed / items) <= ROUNDING * abs(mean):
        return None
    seed_error = math.sqrt(by_seed / cells)
    # an estimate below 0 means that none was seen
    item_share = max(0.0, by_item - rest) / cells
    half_same = t_quantile(LEVEL, seeds - 1) * seed_error
    half_new = t_quantile(LEVEL, _freedom(by_seed, by_item, rest, seeds, items)) * math.sqrt(
        by_seed / cells + item_share
    )
    return Crossed(
        seeds,
        items,
        mean,
        seed_sd=math.sqrt(max(0.0, by_seed - rest) / items),
        item_sd=math.sqrt(max(0.0, by_item - rest) / seeds),
        rest_sd=math.sqrt(rest),
        seed_error=seed_error,
        item_error=math.sqrt(item_share),
        document_error=math.sqrt((max(0.0, by_item - rest) / seeds + rest) / items),
        same_items=(mean - half_same, mean + half_same),
        new_items=(mean - max(half_same, half_new), mean + max(half_same, half_new)),
    )


def _mean_squares(differences: Differences) -> tuple[float, float, float]:
    """Between seeds, between items, and what is left."""
    seeds, items = differences.shape
    centred = differences - differences.mean()
    of_seeds, of_items = centred.mean(axis=1), centred.mean(axis=0)
    left = centred - of_seeds[:, None] - of_items[None, :]
    return (
        items * float((of_seeds**2).sum()) / (seeds - 1),
        seeds * float((of_items**2).sum()) / (items - 1),
        float((left**2).sum()) / ((seeds - 1) * (items - 1)),
    )


def _freedom(by_seed: float, by_item: float, rest: float, seeds: int, items: int) -> float:
    """Degrees of freedom of by_seed + by_item - rest (Satterthwaite, 1946), or of by_seed alone."""
    if by_item <= rest:
        return seeds - 1
    total = by_seed + by_item - rest
    parts = (
        by_seed**2 / (seeds - 1),
        by_item**2 / (items - 1),
        rest**2 / ((seeds - 1) * (items - 1)),
    )
    return total**2 / sum(parts)

"""A task's difference by seed and by item, from what every single item of both runs scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mhc_bench.evidence.collate import Arm, Row
from mhc_bench.evidence.items import Items, TaskItems
from mhc_bench.evidence.quantities import GOLD, task_gold, task_quantities, task_score
from mhc_bench.evidence.record import Record
from mhc_bench.evidence.statistics.crossed import Crossed, CrossedMean, Differences, crossed, crossed_mean

SAME = 1e-9
"""Relative: a mean of items that is further from the record's score is not how that score came about."""


class NoItemsError(Exception):
    """Why a task cannot be looked at item by item."""


def item_differences(arm: Arm, row: Row, task: str, family: str) -> Crossed:
    """Variant minus reference of one task over their common seeds and all items.

    Args:
        family: `quantities.SCORES` for what each item scored, `quantities.GOLD` for its gold log-likelihood.

    Raises:
        NoItemsError: the records have no such outcomes, or they are of no use here.
        RunError: a side file is damaged.
    """
    pairs = _pairs(arm, row, (task,), family)
    return _known(crossed(_differences(arm, pairs, task, family)))


def mean_item_differences(arm: Arm, row: Row, tasks: Sequence[str], family: str) -> CrossedMean:
    """The same of the mean over `tasks`, over the seeds whose runs have all of them.

    Raises:
        NoItemsError, RunError: as `item_differences`, for any of the tasks.
    """
    pairs = _pairs(arm, row, tasks, family)
    return _known(crossed_mean([_differences(arm, pairs, task, family) for task in tasks]))


Pairs = list[tuple[Record, Record]]
Kind = TypeVar("Kind", bound=CrossedMean)


def _known(found: Kind | None) -> Kind:
    if found is None:
        raise NoItemsError("one item, or no spread over seeds")
    return found


def _pairs(arm: Arm, row: Row, tasks: Sequence[str], family: str) -> Pairs:
    base = arm.baseline
    wanted = task_quantities({name: arm.tasks[name] for name in tasks}, family)
    both = [arm.values(each, quantity).keys() for quantity in wanted for each in (row, base) if each]
    if base is None or len(seeds := set(row.runs).intersection(*both)) < 2:
        raise NoItemsError("fewer than two pairs")
    return [(row.runs[seed], base.runs[seed]) for seed in row.runs if seed in seeds]


def _differences(arm: Arm, pairs: Pairs, task: str, family: str) -> Differences:
    values = [[_outcomes(arm, run, task, family) for run in pair] for pair in pairs]
    if len({documents for pair in values for documents, _ in pair}) > 1:
        raise NoItemsError("the runs answered different items")
    return np.array([np.subtract(first[1], second[1]) for first, second in values])


Outcomes = tuple[tuple[tuple[str, int], ...], tuple[float, ...]]
"""Each item by task and number, and its value."""


def _outcomes(arm: Arm, run: Record, task: str, family: str) -> Outcomes:
    items = arm.items.of(run)
    if items is None:
        raise NoItemsError("no per-item outcomes (records of schema version 1 have none)")
    documents: list[tuple[str, int]] = []
    values: list[float] = []
    for name in items.groups.get(task, (task,)):
        documents += ((name, number) for number in _part(items, name).documents)
        values += _values(_part(items, name), family)
    score = _score(run, task, family)
    assert score is not None
    if not values or not math.isclose(math.fsum(values) / len(values), score, rel_tol=SAME, abs_tol=SAME):
        raise NoItemsError("its score is not the mean over its items")
    return tuple(documents), tuple(values)


def _score(run: Record, task: str, family: str) -> float | None:
    return task_gold(run, task) if family == GOLD else task_score(run, task)


def _part(items: Items, name: str) -> TaskItems:
    if name not in items.tasks:
        raise NoItemsError("the per-item outcomes lack it")
    return items.tasks[name]


def _values(part: TaskItems, family: str) -> list[float]:
    column = part.gold if family == GOLD else part.values
    known = [value for value in column or () if value is not None]
    if len(known) < len(part.documents):
        raise NoItemsError("some items have no value")
    return known

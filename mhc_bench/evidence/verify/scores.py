"""Checks of the evaluation: scores recomputed from what every item scored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mhc_bench.evidence.items import ITEMS_FILE, Items, TaskItems
from mhc_bench.evidence.quantities import is_fraction
from mhc_bench.evidence.record import Subtask, Task
from mhc_bench.evidence.verify.checks import Entry, Finding, Remark, Tools, record_check
from mhc_bench.evidence.verify.training import WRITTEN, near

ALL_OR_NOTHING = frozenset({"acc", "acc_norm", "exact_match"})
"""Metrics that are 0 or 1 for each item."""


@record_check("item digest", "the per-item outcomes beside the record are the ones that it was made from")
def item_digest(entry: Entry, tools: Tools) -> Iterator[Finding | Remark]:
    record, there = entry.record, entry.items
    evaluation = record.evaluation
    said, packed = evaluation.items if evaluation else None, record.side_files.get(ITEMS_FILE)
    if there is None and (said or packed):
        yield entry.problem("no per-item outcomes", f"the file of digest {str(packed or said)[:16]}")
    elif there is None and evaluation is not None:
        yield entry.note("not checked: no per-item outcomes")
    elif there is not None and packed != there.packed_digest:
        yield entry.problem(f"per-item file {there.packed_digest[:16]}", f"{packed}, among the side files")
    elif there is not None and said != there.digest:
        yield entry.problem(f"per-item content {there.digest[:16]}", f"{said}, as the evaluation says")


@record_check("scores", "every score, its error and its parts are what the items' outcomes give")
def scores(entry: Entry, tools: Tools) -> Iterator[Finding | Remark]:
    if entry.record.evaluation is None:
        return
    if entry.items is None:
        yield entry.note("not recomputed: no per-item outcomes")
        return
    items, tasks = entry.items.items, entry.record.evaluation.tasks
    known = {name for name in items.tasks if not any(name in each for each in items.groups.values())}
    if tasks.keys() != known | items.groups.keys():
        yield entry.problem(
            f"tasks {sorted(tasks)}", f"{sorted(known | items.groups.keys())}, as in the per-item outcomes"
        )
        return
    for name, task in tasks.items():
        if name in items.groups:
            yield from _group(entry, name, task, items)
        else:
            yield from _task(entry, name, task, items.tasks[name])


def _task(entry: Entry, name: str, task: Task, items: TaskItems) -> Iterator[Finding | Remark]:
    if (task.n, task.metric) != (len(items.documents), items.metric):
        yield entry.problem(
            f"{name}: {task.n} items of {task.metric}", f"{len(items.documents)} of {items.metric}"
        )
        return
    if len(set(items.documents)) < len(items.documents):
        yield entry.problem(f"{name}: an item is counted twice", "each item once")
    values = _numbers(items.values)
    if items.aggregation != "mean" or values is None:
        yield entry.note(f"{name}: not recomputed: its score is no mean ({items.aggregation})")
        return
    yield from _compare(entry, name, "value", task.value, mean(values))
    yield from _compare(entry, name, "stderr", task.stderr, standard_error(values))
    gold = _numbers(items.gold) if items.gold else None
    yield from _compare(
        entry, name, "gold_loglikelihood", task.gold_loglikelihood, mean(gold) if gold else None
    )
    yield from _kinds(entry, name, task, items, values)


def _kinds(
    entry: Entry, name: str, task: Task, items: TaskItems, values: Sequence[float]
) -> Iterator[Finding]:
    kinds = items.kinds or ()
    if set(kinds) != task.subtasks.keys():
        yield entry.problem(f"{name}: kinds {sorted(task.subtasks)}", sorted(set(kinds)))
        return
    for kind, part in task.subtasks.items():
        chosen = [index for index, each in enumerate(kinds) if each == kind]
        gold = _numbers([items.gold[index] for index in chosen]) if items.gold else None
        expected = (len(chosen), mean([values[index] for index in chosen]), mean(gold) if gold else None)
        found = (part.n, part.value, part.gold_loglikelihood)
        for what, ours, theirs in zip(("n", "value", "gold_loglikelihood"), found, expected, strict=True):
            yield from _compare(entry, f"{name}/{kind}", what, ours, theirs)


def _group(entry: Entry, name: str, task: Task, items: Items) -> Iterator[Finding | Remark]:
    """A group's score is the mean over its tasks, each weighted by its items or all alike."""
    parts = [(each, items.tasks.get(each), task.subtasks.get(each)) for each in items.groups[name]]
    whole = [(each, there, part) for each, there, part in parts if there is not None and part is not None]
    if len(whole) < len(parts) or len(parts) < len(task.subtasks):
        yield entry.problem(f"{name}: tasks {sorted(task.subtasks)}", sorted(items.groups[name]))
        return
    for each, there, part in whole:
        yield from _member(entry, f"{name}/{each}", part, there)
    if any(there.aggregation != "mean" for _, there, _ in whole):
        yield entry.note(f"{name}: not recomputed: a score of a part is no mean")
        return
    n = sum(len(there.documents) for _, there, _ in whole)
    yield from _compare(entry, name, "n", task.n, n)
    choices = [value for value in _group_values([part for _, _, part in whole]) if value is not None]
    if task.value is None or not any(near(task.value, value) for value in choices):
        yield entry.problem(f"{name}: value {task.value}", f"one of {choices}, from its tasks")


def _member(entry: Entry, name: str, part: Subtask, there: TaskItems) -> Iterator[Finding]:
    values = _numbers(there.values)
    yield from _compare(entry, name, "n", part.n, len(there.documents))
    if there.aggregation == "mean" and values is not None:
        yield from _compare(entry, name, "value", part.value, mean(values))


def _group_values(parts: Sequence[Subtask]) -> tuple[float | None, float | None]:
    values = _numbers([part.value for part in parts])
    weights = [part.n for part in parts]
    if not values or not sum(weights):
        return None, None
    return sum(n * v for n, v in zip(weights, values, strict=True)) / sum(weights), mean(values)


def _compare(
    entry: Entry, name: str, what: str, ours: float | None, theirs: float | None
) -> Iterator[Finding]:
    same = ours is theirs if ours is None or theirs is None else near(ours, theirs)
    if not same:
        yield entry.problem(f"{name}: {what} {ours}", f"{theirs}, from the items")


def _numbers(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) and known else None


def mean(values: Sequence[float]) -> float:
    """The mean, summed exactly."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float | None:
    """Sample standard deviation over sqrt(n), as lm-eval gives it for a mean; None for one item."""
    if len(values) < 2:
        return None
    centre = mean(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


@record_check("score shape", "scores lie in their range, count whole items and are the mean of their parts")
def score_shape(entry: Entry, tools: Tools) -> Iterator[Finding]:
    """What can be said without the items."""
    for name, task in entry.record.evaluation.tasks.items() if entry.record.evaluation else ():
        if task.value is None or task.n == 0:
            yield entry.problem(
                f"{name}: value {task.value} of {task.n} items", "a number, of at least one item"
            )
            continue
        metric, value = task.metric.split(",")[0], task.value
        if is_fraction(task) and not 0 <= value <= 1:
            yield entry.problem(f"{name}: {metric} {value}", "0 to 1")
        group = entry.items is not None and name in entry.items.items.groups
        whole = entry.items is not None or len(task.subtasks) == 0 or _is_sum(task)
        if (
            metric in ALL_OR_NOTHING
            and not group
            and whole
            and not near(value * task.n, round(value * task.n), WRITTEN)
        ):
            yield entry.problem(f"{name}: {value * task.n:.6g} of {task.n} items right", "a whole number")
        parts = list(task.subtasks.values())
        if parts and sum(part.n for part in parts) != task.n:
            yield entry.problem(f"{name}: parts of {sum(part.n for part in parts)} items", f"{task.n} items")
        elif parts and not any(each is not None and near(value, each) for each in _group_values(parts)):
            yield entry.problem(f"{name}: value {value}", f"{_group_values(parts)[0]}, the mean of its parts")


def _is_sum(task: Task) -> bool:
    weighted = _group_values(list(task.subtasks.values()))[0]
    return task.value is not None and weighted is not None and near(task.value, weighted)

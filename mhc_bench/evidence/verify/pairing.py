"""Checks across the runs of a protocol: true pairs, every started seed, no run counted twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial

from mhc_bench.evidence.record import Record, Task
from mhc_bench.evidence.verify.checks import (
    Entry,
    Finding,
    Remark,
    Submission,
    named,
    protocol_check,
    whole_check,
)

Key = Callable[[Record], Hashable]


def _trained(group: tuple[Entry, ...]) -> list[Entry]:
    return [entry for entry in group if entry.record.digests and entry.record.training]


def _unequal(group: list[Entry], what: str, key: Key, value: Key) -> Iterator[Finding]:
    """Entries whose value is not that of the first entry with the same key."""
    first: dict[Hashable, Entry] = {}
    for entry in group:
        same = first.setdefault(key(entry.record), entry)
        if value(same.record) != value(entry.record):
            yield entry.problem(
                f"{what} {value(entry.record)}", f"{value(same.record)}, as {named(same)} ({same.file})"
            )


def _repeated(group: list[Entry], what: str, value: Key) -> Iterator[Finding]:
    """Entries of one seed that have the value of another seed."""
    first: dict[Hashable, Entry] = {}
    for entry in group:
        same = first.setdefault(value(entry.record), entry)
        if same.record.identity.seed != entry.record.identity.seed:
            yield entry.problem(f"the {what} of {named(same)}", "one of its own: seeds differ")


def _seed(record: Record) -> int:
    return record.identity.seed


def _shared_weights(record: Record) -> str:
    return record.digests.shared_weights if record.digests else ""


def _token_stream(record: Record) -> str:
    return record.digests.token_stream if record.digests else ""


def _seed_and_tokens(record: Record) -> tuple[int, int]:
    # a run that diverged saw fewer tokens, so its digest is of a shorter stream
    return record.identity.seed, record.training.tokens if record.training else 0


@protocol_check(
    "shared weights", "all variants of a seed started from the same shared weights, other seeds from others"
)
def shared_weights(group: tuple[Entry, ...]) -> Iterator[Finding]:
    yield from _unequal(_trained(group), "shared-weight digest", _seed, _shared_weights)
    yield from _repeated(_trained(group), "shared weights", _shared_weights)


@protocol_check(
    "token stream", "all variants of a seed saw the same tokens in the same order, other seeds others"
)
def token_stream(group: tuple[Entry, ...]) -> Iterator[Finding]:
    trained = [entry for entry in _trained(group) if entry.record.training and entry.record.training.tokens]
    yield from _unequal(trained, "token-stream digest", _seed_and_tokens, _token_stream)
    yield from _repeated(trained, "token stream", _token_stream)


@protocol_check("data", "all runs of a protocol read the same source with the same tokenizer")
def data(group: tuple[Entry, ...]) -> Iterator[Finding]:
    yield from _unequal(
        _trained(group), "data", lambda record: "", lambda record: tuple(sorted(record.data.items()))
    )


@protocol_check(
    "requests", "all runs of a protocol answered the same tasks, items and shots, against one chance level"
)
def requests(group: tuple[Entry, ...]) -> Iterator[Finding]:
    asked = [entry for entry in group if entry.record.evaluation]
    for name in sorted({name for entry in asked for name in _tasks(entry.record)}):
        yield from _unequal(asked, name, lambda record: "", partial(_asked, name))


def _tasks(record: Record) -> dict[str, Task]:
    return record.evaluation.tasks if record.evaluation else {}


def _asked(name: str, record: Record) -> Hashable:
    task = _tasks(record).get(name)
    if task is None:
        return "missing"
    return task.metric, task.n, task.shots, task.version, task.chance, task.prior, task.request_hash


@protocol_check(
    "seeds", "every run that was started has a record, whatever became of it: no seed was dropped"
)
def seeds(group: tuple[Entry, ...]) -> Iterator[Finding | Remark]:
    there = {(entry.record.identity.variant, entry.record.identity.seed) for entry in group}
    if all(entry.root is None for entry in group):
        yield group[0].note("seeds started were not compared with seeds reported: no folder was given")
        return
    started = {run: entry for entry in group if (plan := entry.record.started) for run in plan.runs}
    silent = tuple(entry for entry in group if entry.record.started is None)
    for run, entry in (_crossed(silent) | started).items():
        if run not in there:
            yield entry.problem(f"no record of {run[0]} seed {run[1]}", "one, whatever became of that run")
    for entry in group:
        plan = entry.record.started
        if plan is None:
            yield entry.note("its schema version does not tell which seeds were started")
        elif not plan.names(entry.record.identity.variant, _seed(entry.record)):
            yield entry.problem(
                f"{named(entry)} is none of the runs that it says were started", "one of them"
            )


def _crossed(group: tuple[Entry, ...]) -> dict[tuple[str, int], Entry]:
    """Every variant crossed with every seed: what must have been started, where nobody says."""
    by_variant = {entry.record.identity.variant: entry for entry in group}
    numbers = {_seed(entry.record) for entry in group}
    return {(variant, seed): entry for variant, entry in by_variant.items() for seed in numbers}


@whole_check("duplicates", "no run is counted twice, under its own name or another")
def duplicates(submission: Submission) -> Iterator[Finding]:
    names: dict[Hashable, Entry] = {}
    results: dict[Hashable, Entry] = {}
    for entry in submission.current:
        identity = entry.record.identity
        run = (identity.suite, identity.protocol_id, identity.variant, identity.seed)
        if (same := names.setdefault(run, entry)) is not entry:
            yield entry.problem(f"a second record of {named(entry)}", f"one ({same.file})")
        elif (result := _result(entry.record)) and (same := results.setdefault(result, entry)) is not entry:
            yield entry.problem(f"the result of {named(same)} ({same.file})", "a result of its own")


def _result(record: Record) -> Hashable:
    """What two different runs of a protocol cannot share: the weights they ended with."""
    weights = record.digests.weights if record.digests else None
    return (record.identity.suite, record.identity.protocol_id, weights) if weights else None


@protocol_check("environment", "tells where runs of one protocol come from different code or packages")
def environment(group: tuple[Entry, ...]) -> Iterator[Remark]:
    for what, value in (
        ("commits", lambda record: record.provenance.commit),
        ("package versions", lambda record: tuple(sorted(record.provenance.packages.items()))),
        ("locks", lambda record: record.provenance.lock_hash),
    ):
        distinct = {value(entry.record) for entry in group}
        if len(distinct) > 1:
            yield group[0].note(f"the runs of this protocol have {len(distinct)} different {what}")
    for entry in group:
        if entry.record.provenance.dirty:
            yield entry.note("made from code with uncommitted changes")

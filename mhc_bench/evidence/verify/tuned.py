"""Checks of the tuned track: every point of the grid was tried, and the rule chose what was trained with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mhc_bench.evidence.choice import chosen, grid_of, grid_size
from mhc_bench.evidence.parts import Trial, Tuning
from mhc_bench.evidence.verify.checks import (
    Entry,
    Finding,
    Remark,
    Submission,
    Tools,
    named,
    record_check,
    whole_check,
)
from mhc_bench.evidence.verify.configuration import differing, protocol_settings, section

SEARCH = "-search"
"""What the suite of the trials is called, after the suite that they are for."""


@record_check(
    "choice", "in the tuned track every point of the grid was tried once for each seed, and the rule chose"
)
def choice(entry: Entry, tools: Tools) -> Iterator[Finding]:
    asked, tuning = entry.record.configuration, entry.record.tuning
    tuned, trials = asked.get("tuned"), tuning.trials if tuning else ()
    if asked.get("search") is None:
        if tuned is not None or trials:
            yield entry.problem(f"chosen values {tuned} and {len(trials)} trials", "none: its track is fixed")
        return
    if not _has_grid(asked) or tuning is None:
        yield entry.problem("a search without a grid or without trials", "both")
        return
    yield from _trials(entry, tuning, asked)
    if trials and tuned != (
        best := dict(zip(("learning_rate", "weight_decay"), chosen(trials), strict=True))
    ):
        yield entry.problem(f"trained with {tuned}", f"{best}, by the rule from its trials")


def _has_grid(asked: Mapping[str, Any]) -> bool:
    lists = [section(asked, "search", name) for name in ("learning_rates", "weight_decays", "seeds")]
    numbers = all(isinstance(each, list) and all(map(_is_number, each)) for each in lists)
    return numbers and _is_number(section(asked, "optimizer", "weight_decay"))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _trials(entry: Entry, tuning: Tuning, asked: Mapping[str, Any]) -> Iterator[Finding]:
    identity, size = entry.record.identity, grid_size(asked)
    if tuning.runs != len(tuning.trials) or len(tuning.trials) != size:
        found = f"{len(tuning.trials)} trials, {tuning.runs} counted"
        yield entry.problem(found, f"{size}: each point of the grid with each seed")
    elif [(each.learning_rate, each.weight_decay, each.seed) for each in tuning.trials] != grid_of(asked):
        # in its order too, by which ties are decided
        yield entry.problem(
            "trials that are not those of the grid", "each point with each seed, in its order"
        )
    if len({trial.record for trial in tuning.trials}) != len(tuning.trials):
        yield entry.problem("one record for two trials", "a record for each")
    if tuning.suite != f"{identity.suite}{SEARCH}":
        yield entry.problem(f"trials of {tuning.suite!r}", f"{identity.suite}{SEARCH}")
    if identity.seed in asked["search"]["seeds"]:
        yield entry.problem(f"seed {identity.seed} is one of its trials'", "seeds that chose nothing")


@whole_check(
    "trials", "the trials of the tuned track have records here, with these values, losses and this protocol"
)
def trials(submission: Submission) -> Iterator[Finding | Remark]:
    known = {entry.record.digest: entry for entry in submission.entries}
    for entry in submission.current:
        own = entry.record.tuning.trials if entry.record.tuning else ()
        there = [(trial, known[trial.record]) for trial in own if trial.record in known]
        if (missing := len(own) - len(there)) and entry.root is not None:
            yield entry.problem(
                f"{missing} of {len(own)} trials without a record", "the records of all trials"
            )
        elif missing:
            yield entry.note(f"the records of {missing} of its {len(own)} trials were not given")
        for trial, record in there:
            yield from _trial(entry, trial, record)


def _trial(entry: Entry, trial: Trial, found: Entry) -> Iterator[Finding]:
    """A trial as a tuned record tells it against the trial's own record."""
    ours, theirs, said = entry.record, found.record, found.record.configuration
    pairs = [
        ("suite", ours.tuning.suite if ours.tuning else "", theirs.identity.suite),
        ("variant", ours.identity.variant, theirs.identity.variant),
        ("connection", ours.identity.connection, theirs.identity.connection),
        ("options", ours.identity.options, theirs.identity.options),
        ("seed", trial.seed, theirs.identity.seed),
        ("learning rate", trial.learning_rate, section(said, "optimizer", "learning_rate")),
        ("weight decay", trial.weight_decay, section(said, "optimizer", "weight_decay")),
        ("loss", trial.loss, theirs.validation_loss),
        ("split", "selection", section(said, "data", "validation_split")),
    ]
    for name, told, own in pairs:
        if told != own:
            yield entry.problem(f"a trial with {name} {told}", f"{own}, as {named(found)} ({found.file})")
    if others := differing(_as_trial(entry), _as_trial(found)):
        yield entry.problem(f"a trial of another protocol: {', '.join(others)}", f"as in {found.file}")


def _as_trial(entry: Entry) -> dict[str, Any]:
    """A protocol without that in which a trial's differs from that of the run it is for."""
    settings = {name: value for name, value in protocol_settings(entry).items() if name != "search"}
    own = {
        "optimizer": ("learning_rate", "weight_decay"),
        "data": ("validation_split",),
        "evaluation": ("tasks",),
    }
    for part, names in own.items():
        if isinstance(settings.get(part), dict):
            settings[part] = {name: value for name, value in settings[part].items() if name not in names}
    return settings

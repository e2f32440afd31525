"""What a check is: a name, one line of what it proves, and a function that yields what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mhc_bench.evidence.items import ItemFile
from mhc_bench.evidence.record import Record


class UnavailableError(Exception):
    """A check cannot be made here: the message says what is missing. It becomes a note, no problem."""


@dataclass(frozen=True)
class Tools:
    """What the checks need and plain data cannot give. None: the check is skipped with a note.

    Both raise `ValueError` for a configuration that makes no sense, and `UnavailableError` where something
    that they need is not installed here.
    """

    identify: Callable[[Mapping[str, Any], int], tuple[str, str]] | None = None
    """(configuration, protocol version) -> protocol id and cost id."""
    count: Callable[[Mapping[str, Any], int], Mapping[str, int]] | None = None
    """(configuration, FLOPs rule) -> `total`, `active`, `vocabulary`, `residual` parameters and
    `flops_per_token`."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it must be."""

    file: str
    check: str
    found: str
    expected: str


@dataclass(frozen=True)
class Note:
    """Something that was not checked, or that a reader should know."""

    file: str
    check: str
    text: str


@dataclass(frozen=True, eq=False)
class Entry:
    """One record with what belongs to it."""

    path: Path
    root: Path | None
    """The folder that was given; None for a file that was named itself."""
    data: bytes
    content: dict[str, Any]
    """As it stands in the file, in its own schema version."""
    record: Record
    items: ItemFile | None = None

    @property
    def file(self) -> str:
        """Its name in a report."""
        return printable(self.path)

    def problem(self, found: object, expected: object) -> Finding:
        """Something about this record that is not as it must be."""
        return Finding(self, printable(found), printable(expected))

    def note(self, text: object) -> Remark:
        """Something about this record that was not checked."""
        return Remark(self, printable(text))


@dataclass(frozen=True)
class Finding:
    """A problem before it knows which check found it."""

    entry: Entry
    found: str
    expected: str


@dataclass(frozen=True)
class Remark:
    """A note before it knows which check made it."""

    entry: Entry
    text: str


@dataclass(frozen=True)
class Submission:
    """All records that were given."""

    entries: tuple[Entry, ...]
    tools: Tools = field(default_factory=Tools)

    @property
    def current(self) -> tuple[Entry, ...]:
        """Those that no other record corrects."""
        gone = {entry.record.supersedes for entry in self.entries if entry.record.supersedes}
        return tuple(entry for entry in self.entries if entry.record.digest not in gone)

    def protocols(self) -> list[tuple[Entry, ...]]:
        """The current records, those of one protocol id together."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.current:
            groups.setdefault(entry.record.identity.protocol_id, []).append(entry)
        return [tuple(group) for group in groups.values()]


Said = Iterable[Finding | Remark]
OfRecord = Callable[[Entry, Tools], Said]
OfProtocol = Callable[[tuple[Entry, ...]], Said]
OfAll = Callable[[Submission], Said]


@dataclass(frozen=True)
class Check:
    """One check over everything that was given."""

    name: str
    proves: str
    run: OfAll


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run."""


def record_check(name: str, proves: str) -> Callable[[OfRecord], OfRecord]:
    """Decorator: a check of each record alone."""

    def register(function: OfRecord) -> OfRecord:
        def run(submission: Submission) -> Iterator[Finding | Remark]:
            for entry in submission.entries:
                try:
                    yield from function(entry, submission.tools)
                except ArithmeticError:
                    yield entry.problem("numbers too large to compute with", "numbers that a run can give")

        CHECKS[name] = Check(name, proves, run)
        return function

    return register


def protocol_check(name: str, proves: str) -> Callable[[OfProtocol], OfProtocol]:
    """Decorator: a check of the current records of one protocol together."""

    def register(function: OfProtocol) -> OfProtocol:
        def run(submission: Submission) -> Iterator[Finding | Remark]:
            for group in submission.protocols():
                yield from function(group)

        CHECKS[name] = Check(name, proves, run)
        return function

    return register


def whole_check(name: str, proves: str) -> Callable[[OfAll], OfAll]:
    """Decorator: a check of everything that was given together."""

    def register(function: OfAll) -> OfAll:
        CHECKS[name] = Check(name, proves, function)
        return function

    return register


def run_checks(submission: Submission) -> tuple[list[Problem], list[Note]]:
    """What all checks say, in their order."""
    problems: list[Problem] = []
    notes: list[Note] = []
    for check in CHECKS.values():
        for said in check.run(submission):
            if isinstance(said, Finding):
                problems.append(Problem(said.entry.file, check.name, said.found, said.expected))
            else:
                notes.append(Note(said.entry.file, check.name, said.text))
    return problems, notes


def printable(value: object, longest: int = 300) -> str:
    """A text that is safe on a terminal and in a log: one line, no control characters, not endless."""
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(value)[: longest + 1])
    return text if len(text) <= longest else f"{text[:longest]}..."


def named(entry: Entry) -> str:
    """A run as messages call it."""
    return f"{entry.record.identity.variant} seed {entry.record.identity.seed}"

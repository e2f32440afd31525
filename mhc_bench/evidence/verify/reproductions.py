"""Checks of reproductions: harmless text, a verdict that its own numbers give, the record that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mhc_bench.evidence import strict
from mhc_bench.evidence.reproduction import (
    REPRODUCTION_NAME,
    Reproduction,
    contradiction,
    parse_reproduction,
)
from mhc_bench.evidence.verify.checks import Note, Problem, printable
from mhc_bench.evidence.verify.form import harm
from mhc_bench.evidence.verify.intake import Intake

NAME = "reproduction"
REPRODUCTION = {NAME: "a reproduction names the record beside it, agrees with itself, and counts once"}


def check_reproductions(intake: Intake) -> tuple[list[Problem], list[Note]]:
    """What is wrong with reproductions, and what the others say."""
    records = {(entry.path.parent, entry.path.stem): entry.record.digest for entry in intake.entries}
    problems, notes, seen = [], [], set[Reproduction | str]()
    for path, data in intake.reproductions:
        file = printable(path)
        try:
            told = parse_reproduction(data)
        except ValueError as error:
            problems.append(Problem(file, NAME, printable(error), "a reproduction (docs/records.md)"))
            continue
        found = [*_wrong(told, data), *_misplaced(told, path, records)]
        found += ["a repetition that counts already"] if (told.repetition or told) in seen else []
        seen.add(told.repetition or told)
        problems += [Problem(file, NAME, printable(each), EXPECTED) for each in found]
        if not found:
            by = f" by {printable(told.by)}" if told.by else ""
            notes.append(Note(file, NAME, f"reproduced{by}: {told.verdict}"))
    return problems, notes


EXPECTED = "what `mhc-bench reproduce` wrote of the record beside it"


def _wrong(told: Reproduction, data: bytes) -> Iterator[str]:
    yield from (found for text in strict.texts(strict.parse(data)) if (found := harm(text)))
    if (found := contradiction(told)) is not None:
        yield found


def _misplaced(told: Reproduction, path: Path, records: dict[tuple[Path, str], str]) -> Iterator[str]:
    match = REPRODUCTION_NAME.match(path.name)
    if match is None or records.get((path.parent, match[1])) != told.record:
        yield f"of record {told.record[:16]}"

"""What a verification found, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mhc_bench.evidence.verify.checks import Note, Problem


@dataclass(frozen=True)
class Report:
    """All problems and notes of a verification."""

    records: int
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...]

    def to_text(self) -> str:
        """One line per problem; notes that say the same of several files are one line."""
        lines = [
            f"{each.file}: {each.check}: found {each.found}; expected {each.expected}"
            for each in self.problems
        ]
        same = Counter((note.check, note.text) for note in self.notes)
        first = {(note.check, note.text): note.file for note in reversed(self.notes)}
        for (check, text), count in same.items():
            more = f" (and {count - 1} more)" if count > 1 else ""
            lines.append(f"note: {first[check, text]}{more}: {check}: {text}")
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        files = len({problem.file for problem in self.problems})
        if self.problems:
            where = f"{_counted(len(self.problems), 'problem')} in {_counted(files, 'file')}"
            return f"{_counted(self.records, 'record')} read: {where}"
        return f"{_counted(self.records, 'record')}: no problem found"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "records": self.records,
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "notes": [dataclasses.asdict(note) for note in self.notes],
        }


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

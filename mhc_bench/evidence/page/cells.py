"""Tables as the page shows them: cells that sort, link to their records and say their verdict in colour."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mhc_bench.evidence.tables import WORDS, Table

NUMBER = re.compile(r"^\(?x? ?([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)")
TONES = {
    "better": "good",
    "confirmed": "good",
    "worse": "bad",
    "contradicted": "bad",
}
"""First word of a verdict -> its colour; every other verdict is neutral."""
GROUPING = "Measure"
"""The column whose equal values stand together, whatever the order: numbers of two measures never mix."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text and what the page does with it."""

    text: str
    is_word: bool
    key: float | None
    """By what a column of numbers sorts; None for what is no number, which comes last."""
    link: str = ""
    tone: str = ""
    """Of a verdict: good, bad or neutral."""


@dataclass(frozen=True)
class Line:
    """One row."""

    cells: tuple[Cell, ...]
    variant: str
    tone: str


@dataclass(frozen=True)
class Group:
    """Rows that sort among themselves, below a heading where the table has several."""

    heading: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Sheet:
    """A table ready to be drawn: groups of rows that sort apart."""

    title: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    """Heading, and whether it heads words."""
    groups: tuple[Group, ...]


Links = Mapping[str, str]
"""Variant -> where its records are listed."""


def sheet(table: Table, links: Links, files: Mapping[tuple[str, str], str] | None = None) -> Sheet:
    """A table with links.

    Args:
        links: from a row's variant to the list of its records.
        files: (variant, seed) -> a record's own file, for tables with one run in a row.
    """
    grouping = table.columns.index(GROUPING) if GROUPING in table.columns else None
    kept = [index for index in range(len(table.columns)) if index != grouping]
    headings = [table.columns[index] for index in kept]
    groups = [
        Group(
            heading,
            tuple(_line(headings, [row[index] for index in kept], links, files or {}) for row in rows),
        )
        for heading, rows in groupby(table.rows, key=lambda row: "" if grouping is None else row[grouping])
    ]
    columns = tuple((heading, heading in WORDS) for heading in headings)
    return Sheet(table.title, table.caption, columns, tuple(groups))


def _line(
    columns: Sequence[str], row: Sequence[str], links: Links, files: Mapping[tuple[str, str], str]
) -> Line:
    said = dict(zip(columns, row, strict=True))
    variant = said.get("Variant", "")
    target = files.get((variant, said.get("Seed", "")), links.get(variant, ""))
    cells = tuple(_cell(heading, text, target) for heading, text in said.items())
    return Line(cells, variant, next((cell.tone for cell in cells if cell.tone), ""))


def _cell(heading: str, text: str, target: str) -> Cell:
    is_word = heading in WORDS
    key = None if is_word else number(text)
    if heading.endswith("Verdict") and text not in ("", "-"):
        return Cell(text, True, None, target, tone(text))
    shows_run = heading in ("Variant", "Record SHA-256") or key is not None
    return Cell(text, is_word, key, target if shows_run else "")


def number(text: str) -> float | None:
    """The number that a cell starts with."""
    found = NUMBER.match(text)
    return float(found[1].replace(",", "")) if found else None


def tone(verdict: str) -> str:
    """The colour of a verdict."""
    return TONES.get(verdict.split()[0].rstrip(",;:"), "neutral")

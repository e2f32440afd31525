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
GROUPINGS = ("Measure", "Equal", "Task")
"""Columns that group the rows of variants: numbers of two measures, budgets or tasks never mix."""
PAPERS = ("Paper", "Source", "Claim", "Case", "Remark", "Task", "Metric", "Protocol id", "Arm", "Status")
"""Columns whose numbers are not computed from the records."""
SIMULATED = "Case"
"""Heads what was simulated: its numbers rest on no record."""


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
    anchor: str


@dataclass(frozen=True)
class Links:
    """Where the numbers of a table lead."""

    variants: Mapping[str, str]
    """Variant -> the list of its records."""
    files: Mapping[tuple[str, str], str]
    """(variant, seed) -> a record's own file, for tables with one run in a row."""
    rest: str = ""
    """The list of all records, for rows of no variant; empty for nowhere."""


def sheet(table: Table, links: Links, anchor: str = "") -> Sheet:
    """A table with links, and an id where it is linked to."""
    grouping = next((each for each in GROUPINGS if {each, "Variant"} <= set(table.columns)), None)
    at = None if grouping is None else table.columns.index(grouping)
    kept = [index for index in range(len(table.columns)) if index != at]
    headings = [table.columns[index] for index in kept]
    groups = [
        Group(heading, tuple(_line(headings, [row[index] for index in kept], links) for row in rows))
        for heading, rows in groupby(table.rows, key=lambda row: "" if at is None else row[at])
    ]
    columns = tuple((heading, heading in WORDS) for heading in headings)
    return Sheet(table.title, table.caption, columns, tuple(groups), anchor)


def _line(columns: Sequence[str], row: Sequence[str], links: Links) -> Line:
    said = dict(zip(columns, row, strict=True))
    variant = said.get("Variant", "")
    target = "" if SIMULATED in said else links.variants.get(variant, links.rest)
    target = links.files.get((variant, said.get("Seed", "")), target)
    cells = tuple(_cell(heading, text, target) for heading, text in said.items())
    tone = next((cell.tone for cell in cells if cell.tone), "")
    return Line(cells, variant if variant in links.variants else "", tone)


def _cell(heading: str, text: str, target: str) -> Cell:
    is_word = heading in WORDS
    key = None if is_word else number(text)
    if heading.endswith("Verdict") and text not in ("", "-"):
        return Cell(text, True, None, target, tone(text))
    proven = heading in ("Variant", "Record SHA-256") or (heading not in PAPERS and number(text) is not None)
    return Cell(text, is_word, key, target if proven else "")


def number(text: str) -> float | None:
    """The number that a cell starts with."""
    found = NUMBER.match(text)
    return float(found[1].replace(",", "")) if found else None


def tone(verdict: str) -> str:
    """The colour of a verdict."""
    return TONES.get(verdict.split()[0].rstrip(",;:"), "neutral")

"""Tables and pages as GitHub Markdown. All text is escaped: names and notes come from others' records."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from mhc_bench.evidence.tables import WORDS, Table

SPECIAL = re.compile(r"([\\`*\[\]|~#])")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
ADDRESSES = (
    (re.compile("://"), ":&#47;&#47;"),
    (re.compile(r"(www)\.", re.IGNORECASE), r"\1&#46;"),
    (re.compile("@"), "@<!-- -->"),
)
"""What GitHub would make a link of, and how it stays text. A word joiner would be invisible, and GitHub looks
for e-mail addresses when it has read the entities."""


@functools.lru_cache(maxsize=2**14)
def escape(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would read as markup."""
    flat = " ".join(text.split())
    for sign, entity in ENTITIES.items():
        flat = flat.replace(sign, entity)
    flat = SPECIAL.sub(r"\\\1", flat)
    for address, broken in ADDRESSES:
        flat = address.sub(broken, flat)
    return flat


def markdown_table(table: Table) -> str:
    """The table, a row per line: names to the left, numbers to the right."""
    marks = [":---" if heading in WORDS else "---:" for heading in table.columns]
    return "\n".join([_line(table.columns), f"| {' | '.join(marks)} |", *map(_line, table.rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def render(template: str, content: Mapping[str, Any]) -> str:
    """A template of this package, as Markdown, ending in one newline."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mhc_bench.evidence"),
        autoescape=jinja2.select_autoescape(["html", "html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(md=escape, table=markdown_table)
    text = environment.get_template(template).render(**content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

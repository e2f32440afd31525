"""The leaderboard as one static page: no network, no scripts from elsewhere, everything inline."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from mhc_bench.evidence.collate import Arm, Board
from mhc_bench.evidence.facts import facts
from mhc_bench.evidence.page.cells import Links, Sheet, sheet
from mhc_bench.evidence.page.charts import dashes
from mhc_bench.evidence.page.variants import Plot, anchor_of, looks, overview, variant_parts
from mhc_bench.evidence.paper import CLAIMS
from mhc_bench.evidence.record import Record
from mhc_bench.evidence.tables import Table, unpaired_notes

RUNS = "Runs"
"""The title of the table that lists every record of a protocol."""


@dataclass(frozen=True)
class ArmSection:
    """One protocol: its tables never mix with another's."""

    arm: Arm
    anchor: str
    sheets: tuple[Sheet, ...]
    plots: tuple[Plot, ...]
    facts: Sequence[tuple[str, str]]
    gaps: Sequence[str]


def html_page(
    board: Board,
    study: Sequence[Table],
    tables: Mapping[str, Sequence[Table]],
    about: Mapping[str, str],
    place: Path,
) -> str:
    """The page as HTML.

    Args:
        study: the arms side by side; empty for one protocol.
        tables: arm -> its tables.
        about: registered connection -> its formula in words, as plain text.
        place: the folder in which the page will lie; links to records start there.
    """

    def link(record: Record) -> str:
        return _relative(record.path, place) if record.path else ""

    style, script = (_resource(name) for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mhc_bench.evidence"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(
        board=board,
        study=[sheet(table, Links(_anchors(board), {})) for table in study],
        sections=[_section(board, arm, tables[arm.name], link) for arm in board.arms],
        variants=variant_parts(board, about, link),
        claims=CLAIMS,
        dashes=dashes,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )
    return text + "\n"


def _section(board: Board, arm: Arm, tables: Sequence[Table], link: Callable[[Record], str]) -> ArmSection:
    links = {row.variant: f"#{anchor_of(arm.name, row.variant)}" for row in arm.rows}
    own = {(run.identity.variant, str(run.identity.seed)): link(run) for run in arm.records if link(run)}
    runs = f"runs~{arm.name}"
    found = Links(links, own, f"#{runs}")
    sheets = tuple(sheet(table, found, runs if table.title == RUNS else "") for table in tables)
    plots = overview(arm, looks(board.variants))
    return ArmSection(arm, f"arm~{arm.name}", sheets, plots, facts(arm), unpaired_notes(arm))


def _anchors(board: Board) -> dict[str, str]:
    return {name: f"#{anchor_of(name)}" for name in board.variants}


def _relative(path: Path, place: Path) -> str:
    """A link from a page in `place` to a file."""
    return quote(Path(os.path.relpath(path, place)).as_posix())


def _resource(name: str) -> str:
    return (files("mhc_bench.evidence") / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The page's own Content-Security-Policy: nothing but its own style and script, by their digests."""

    def hashed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; style-src {hashed(style)}; script-src {hashed(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )

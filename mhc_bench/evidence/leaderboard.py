"""The leaderboard: from a folder of records to a page, data files and figures. Needs the records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mhc_bench.evidence import tables, uncertainty
from mhc_bench.evidence.claims import claims_table
from mhc_bench.evidence.collate import Arm, Board, collate
from mhc_bench.evidence.export import to_csv, to_json
from mhc_bench.evidence.facts import facts
from mhc_bench.evidence.figures import planned, write_figures
from mhc_bench.evidence.latex import latex_document
from mhc_bench.evidence.markdown import render
from mhc_bench.evidence.page import html_page
from mhc_bench.evidence.paper import findings
from mhc_bench.evidence.reproduction import read_reproductions
from mhc_bench.evidence.store import read_with_items, without_collections
from mhc_bench.files import write_text

NOTHING: Mapping[str, str] = MappingProxyType({})


def load_board(records_dir: Path | Iterable[Path]) -> Board:
    """The records below one folder or several, grouped and checked.

    Raises:
        UsageError: no records, several suites, or two protocol ids for one arm.
        RunError: damaged or contradictory records.
    """
    folders = [records_dir] if isinstance(records_dir, Path) else list(records_dir)
    records, items = read_with_items(folders)
    return collate(records, items, read_reproductions(folders))


def build_leaderboard(
    records_dir: Path | Iterable[Path], out: Path, about: Mapping[str, str] = NOTHING
) -> list[Path]:
    """Write leaderboard.md, .html, .tex, .csv, .json and the figures into `out`; equal records, equal bytes.

    Nothing is written when the records cannot share a page.

    Args:
        about: registered connection -> what it computes, as plain text, for the page.

    Returns:
        The files written.

    Raises:
        UsageError, RunError: as `load_board`.
    """
    with without_collections():
        found = Contents(load_board(records_dir))
        pages = {**data_files(found), "leaderboard.html": to_html(found, about, out)}
    for name, text in pages.items():
        write_text(out / name, text)
    return [*(out / name for name in pages), *write_figures(found.board, out)]


@dataclass(frozen=True)
class Contents:
    """A board and its tables, made once for all formats."""

    board: Board

    @cached_property
    def study(self) -> list[tables.Table]:
        """The arms side by side; empty for one protocol."""
        return tables.study(self.board) if self.board.is_study else []

    @cached_property
    def arms(self) -> dict[str, list[tables.Table]]:
        """The tables of each arm, by its name."""
        return {arm.name: _arm_tables(arm) for arm in self.board.arms}


def data_files(contents: Contents) -> dict[str, str]:
    """File name -> content of everything but figures and the static page."""
    return {
        "leaderboard.md": page(contents),
        "leaderboard.csv": to_csv(contents.board),
        "leaderboard.json": to_json(contents.board),
        "leaderboard.tex": to_latex(contents),
    }


def page(contents: Contents) -> str:
    """The Markdown page; its figures lie beside it."""
    return render("leaderboard.md.j2", _rendered(contents))


def to_html(contents: Contents, about: Mapping[str, str], place: Path) -> str:
    """The static page, to lie in the folder `place`."""
    return html_page(contents.board, contents.study, contents.arms, about, place)


def to_latex(contents: Contents) -> str:
    """All tables of the page as LaTeX."""
    study = [("", contents.study)] if contents.study else []
    return latex_document([*study, *contents.arms.items()])


def readme_fragment(board: Board, folder: str) -> str:
    """The headline table (for a study: the arms side by side) and the figures, which lie in `folder`."""
    return render("readme.md.j2", {**_rendered(Contents(board)), "folder": folder})


def _rendered(contents: Contents) -> dict[str, Any]:
    board = contents.board
    return {
        "board": board,
        "study": contents.study,
        "figures": planned(board),
        "sections": [
            {
                "arm": arm,
                "tables": contents.arms[arm.name],
                "facts": facts(arm),
                "gaps": [*tables.unpaired_notes(arm), *uncertainty.gaps(arm)],
            }
            for arm in board.arms
        ],
    }


def _arm_tables(arm: Arm) -> list[tables.Table]:
    title = "Validation loss and the gold answers' log-likelihood" if arm.tasks else "Validation loss"
    title += ", tuned track" if arm.track == "tuned" else ""
    lead = tables.comparison(title, arm, tables.headline_quantities(arm))
    tuned = [tables.tuning(arm)] if arm.track == "tuned" else []
    floor = uncertainty.floor(arm)
    doubt = [uncertainty.power(arm), *([floor] if floor else []), uncertainty.budgets(arm)]
    downstream = [
        tables.scores(arm),
        tables.task_comparison(arm),
        uncertainty.by_item(arm),
        tables.task_properties(arm),
    ]
    claims = claims_table(findings(arm))
    rest = [uncertainty.coverage(arm), tables.stability(arm), tables.cost(arm), claims, tables.runs(arm)]
    found = [lead, *tuned, *doubt, *(downstream if arm.tasks else []), *rest]
    return [table for table in found if table.rows]


def render_summary(board: Board) -> list[tuple[str, ...]]:
    """A short table for a terminal: headings, then a row per arm, headline measure and variant."""
    rows: list[tuple[str, ...]] = []
    for arm in board.arms:
        table = tables.comparison("", arm, tables.headline_quantities(arm))
        rows += (
            table.rows if not board.is_study else [(f"{arm.name}: {row[0]}", *row[1:]) for row in table.rows]
        )
        heading = table.columns
    return [heading, *rows]

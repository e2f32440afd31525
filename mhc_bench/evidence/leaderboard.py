"""The leaderboard: from a folder of records to a page, data files and figures. Needs the records alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mhc_bench.evidence import tables
from mhc_bench.evidence.collate import Arm, Board, collate
from mhc_bench.evidence.export import to_csv, to_json
from mhc_bench.evidence.facts import facts
from mhc_bench.evidence.figures import planned, write_figures
from mhc_bench.evidence.markdown import render
from mhc_bench.evidence.reproduction import read_reproductions
from mhc_bench.evidence.store import read_records
from mhc_bench.files import write_text


def load_board(records_dir: Path | Iterable[Path]) -> Board:
    """The records below one folder or several, grouped and checked.

    Raises:
        UsageError: no records, several suites, or two protocol ids for one arm.
        RunError: damaged or contradictory records.
    """
    folders = [records_dir] if isinstance(records_dir, Path) else list(records_dir)
    return collate(read_records(folders), read_reproductions(folders))


def build_leaderboard(records_dir: Path | Iterable[Path], out: Path) -> list[Path]:
    """Write leaderboard.md, .csv, .json and the figures into `out`; equal records give equal bytes.

    Nothing is written when the records cannot share a page.

    Returns:
        The files written.

    Raises:
        UsageError, RunError: as `load_board`.
    """
    board = load_board(records_dir)
    pages = {
        "leaderboard.md": page(board),
        "leaderboard.csv": to_csv(board),
        "leaderboard.json": to_json(board),
    }
    for name, text in pages.items():
        write_text(out / name, text)
    return [*(out / name for name in pages), *write_figures(board, out)]


def page(board: Board) -> str:
    """The Markdown page; its figures lie beside it."""
    return render("leaderboard.md.j2", _content(board))


def readme_fragment(board: Board, folder: str) -> str:
    """The headline table (for a study: the arms side by side) and the figures, which lie in `folder`."""
    return render("readme.md.j2", {**_content(board), "folder": folder})


def _content(board: Board) -> dict[str, Any]:
    return {
        "board": board,
        "study": tables.study(board) if board.is_study else [],
        "figures": planned(board),
        "sections": [
            {
                "arm": arm,
                "tables": _arm_tables(arm),
                "facts": facts(arm),
                "gaps": tables.unpaired_notes(arm),
            }
            for arm in board.arms
        ],
    }


def _arm_tables(arm: Arm) -> list[tables.Table]:
    title = "Validation loss and the gold answers' log-likelihood" if arm.tasks else "Validation loss"
    lead = tables.comparison(title, arm, tables.headline_quantities(arm))
    downstream = (
        [tables.scores(arm), tables.task_comparison(arm), tables.task_properties(arm)] if arm.tasks else []
    )
    return [lead, *downstream, tables.stability(arm), tables.cost(arm), tables.runs(arm)]


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

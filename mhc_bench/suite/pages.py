"""The verb `leaderboard`: records to a page, its figures and its head in another document."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mhc_bench.config.identity import DIGITS
from mhc_bench.errors import UsageError
from mhc_bench.suite.formulas import formulas
from mhc_bench.suite.preflight import check_folder


def leaderboard(records_dir: Path, suite: str | None, out: Path | None, into: Path | None) -> int:
    """Records to tables and figures."""
    folders = records_folders(records_dir, suite)
    place = out or records_dir / "leaderboard"
    check_folder("--out", place)
    if into is None:
        show_leaderboard(folders, place, Console())
        return 0
    from mhc_bench.evidence import load_board
    from mhc_bench.evidence.embed import embed, slot

    board = load_board(folders)
    document = slot(board.suite, into)  # refused before anything is written
    show_leaderboard(folders, place, Console())
    embed(board, place, document)
    return 0


def records_folders(records_dir: Path, suite: str | None) -> list[Path]:
    """Where the records of a suite lie; the folder itself where no suite is named.

    Raises:
        UsageError: no such suite there.
    """
    if suite is None:
        return [records_dir]
    own = re.compile(rf"{re.escape(suite)}-[0-9a-f]{{{DIGITS}}}")
    folders = sorted(path for path in records_dir.glob("*") if own.fullmatch(path.name))
    if not folders:
        raise UsageError(f"{records_dir} has no folder {suite}-<protocol id>")
    return folders


def show_leaderboard(folders: list[Path], out: Path, console: Console) -> None:
    """Write the leaderboard of the records below `folders` to `out`, and print its head."""
    from mhc_bench.evidence import build_leaderboard, load_board, render_summary

    build_leaderboard(folders, out, formulas())
    headings, *rows = render_summary(load_board(folders))
    for measure, lines in itertools.groupby(rows, key=lambda row: row[0]):
        table = Table(*headings[1:], title=escape(measure), title_justify="left", box=None, pad_edge=False)
        for line in lines:
            table.add_row(*map(Text, line[1:]))
        console.print(table)
    for name in ("leaderboard.md", "leaderboard.html"):
        console.print(f"Leaderboard: {out / name}", highlight=False, soft_wrap=True, markup=False)

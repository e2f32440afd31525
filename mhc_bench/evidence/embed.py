"""A leaderboard's head inside another Markdown file, between two comments that name its suite."""

from __future__ import annotations

import os
from pathlib import Path

from mhc_bench.errors import UsageError
from mhc_bench.evidence.leaderboard import load_board, readme_fragment
from mhc_bench.files import write_text


def embed(folders: list[Path], figures: Path, document: Path) -> None:
    """Put the page's head between `<!-- leaderboard:SUITE -->` and `<!-- /leaderboard:SUITE -->`.

    Args:
        folders: where the records are.
        figures: where the leaderboard, and so its figures, was written.

    Raises:
        UsageError: `document` is missing or has no such pair of comments.
    """
    board = load_board(folders)
    if not document.is_file():
        raise UsageError(f"no such document: {document}")
    text = document.read_text(encoding="utf-8")
    opening, closing = f"<!-- leaderboard:{board.suite} -->", f"<!-- /leaderboard:{board.suite} -->"
    before, found, rest = text.partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        raise UsageError(f"{document} has no {opening} ... {closing} to write between")
    # links in a document are relative to its own folder
    place = Path(os.path.relpath(figures, document.parent)).as_posix()
    fragment = readme_fragment(board, place).strip()
    write_text(document, f"{before}{opening}\n\n{fragment}\n\n{closing}{after}")

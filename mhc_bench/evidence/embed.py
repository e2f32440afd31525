"""A leaderboard's head inside another Markdown file, between two comments that name its suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from mhc_bench.errors import UsageError
from mhc_bench.evidence.collate import Board
from mhc_bench.evidence.leaderboard import readme_fragment
from mhc_bench.files import write_text


class Slot(NamedTuple):
    """A document's text before and after what is to be written, the two comments included."""

    document: Path
    before: str
    after: str


def slot(suite: str, document: Path) -> Slot:
    """What lies around `<!-- leaderboard:SUITE -->` ... `<!-- /leaderboard:SUITE -->`.

    Raises:
        UsageError: `document` is missing or has no such pair of comments.
    """
    if not document.is_file():
        raise UsageError(f"no such document: {document}")
    opening, closing = f"<!-- leaderboard:{suite} -->", f"<!-- /leaderboard:{suite} -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        raise UsageError(f"{document} has no {opening} ... {closing} to write between")
    return Slot(document, before + opening, closing + after)


def embed(board: Board, figures: Path, place: Slot) -> None:
    """Put the page's head into a document.

    Args:
        figures: where the leaderboard, and so its figures, was written.
    """
    # links in a document are relative to its own folder
    links = Path(os.path.relpath(figures, place.document.parent)).as_posix()
    fragment = readme_fragment(board, links).strip()
    write_text(place.document, f"{place.before}\n\n{fragment}\n\n{place.after}")

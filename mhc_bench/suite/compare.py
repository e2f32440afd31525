"""`mhc-bench compare`: two variants of one suite against each other."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mhc_bench.evidence import load_board
from mhc_bench.evidence.pairwise import details, numbers, paired, words
from mhc_bench.evidence.tables import WORDS
from mhc_bench.evidence.tables import Table as Content
from mhc_bench.suite.pages import records_folders


def show(records_dir: Path, first: str, second: str, suite: str | None, as_json: bool) -> int:
    """Print the paired analysis of two variants, for every arm of their suite."""
    board = load_board(records_folders(records_dir, suite))
    pairs = [paired(arm, first, second) for arm in board.arms]
    if as_json:
        content = {"suite": board.suite, "arms": [numbers(arm, row) for arm, row in pairs]}
        print(json.dumps(content, indent=1, allow_nan=False))
        return 0
    console = Console()
    for arm, row in pairs:
        title = f"{board.suite}{f', arm {arm.name}' if arm.name else ''}, protocol {arm.protocol_id}"
        console.print(Text(title, style="bold"))
        for line in words(arm, row):
            console.print(Text(f"- {line}"))
        for table in details(arm):
            console.print(_drawn(table))
            console.print(Text(table.caption, style="dim"))
    return 0


def _drawn(content: Content) -> Table:
    table = Table(title=content.title, title_justify="left", box=None, pad_edge=False)
    for heading in content.columns:
        table.add_column(heading, justify="left" if heading in WORDS else "right", overflow="fold")
    for cells in content.rows:
        table.add_row(*map(Text, cells))
    return table

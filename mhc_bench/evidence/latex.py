r"""Tables as LaTeX, to be \input into a paper. All text is escaped: it comes from others' records."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace

from mhc_bench.evidence.tables import WORDS, Table

COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"\(\pm\)",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
SPECIAL = re.compile("|".join(map(re.escape, COMMANDS)))
MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
"""A sign before a number, and no hyphen."""
WIDE = 28
"""Characters of a cell above which its column breaks lines."""
HEAD = """% Made by mhc-bench leaderboard from the records alone; \\input it into a document that has
% \\usepackage[T1]{fontenc}, \\usepackage{booktabs} and \\usepackage{graphicx}.
"""


@functools.lru_cache(maxsize=2**14)
def escape(text: str) -> str:
    """`text` on one line, with nothing in it that LaTeX would read as a command; ASCII and ± alone."""
    flat = " ".join(text.split())
    plain = "".join(sign if sign.isascii() or sign == "±" else "?" for sign in flat)
    escaped = SPECIAL.sub(lambda found: COMMANDS[found[0]], plain)
    return MINUS.sub(r"\\(-\\)", escaped)


def latex_table(table: Table, label: str) -> str:
    """One floating table, no wider than the line."""
    columns = "".join(_column(table, index) for index in range(len(table.columns)))
    rows = "\n".join(map(_line, table.rows))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize",
            rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}",
            rf"\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _line(table.columns),
            r"\midrule",
            rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _column(table: Table, index: int) -> str:
    if any(len(row[index]) > WIDE for row in table.rows):
        return r"p{4.5cm}"
    return "l" if table.columns[index] in WORDS else "r"


def _line(cells: Sequence[str]) -> str:
    # a bracket after a line's end would be read as its optional argument
    return " & ".join(map(escape, cells)).replace("[", "{[}") + r" \\"


def latex_document(sections: Sequence[tuple[str, Sequence[Table]]]) -> str:
    """All tables: sections are pairs of a name (an arm's, or empty) and its tables, in order."""
    parts = [HEAD]
    for name, tables in sections:
        for table in tables:
            label = "tab:" + re.sub(r"[^a-z0-9]+", "-", f"{name} {table.title}".lower()).strip("-")
            titled = replace(table, title=f"{name}: {table.title}") if name else table
            parts.append(latex_table(titled, label))
    return "\n".join(parts)

"""What is kept of a run that failed: a record like any other, with the reason in place of a result.

A run folder keeps the records of its failed attempts as `record-1.json`, `record-2.json`, ...; each replaces
the one before it, and `record.json` of the finished run replaces the last.
"""

from __future__ import annotations

import re
from pathlib import Path

from mhc_bench.config import RunConfig
from mhc_bench.errors import MhcBenchError
from mhc_bench.evidence import read_record
from mhc_bench.evidence.store import attempts
from mhc_bench.suite.hiding import hidden
from mhc_bench.suite.record import write_attempt
from mhc_bench.suite.state import RECORD_FILE, TRAINING_FILE

LONGEST_REASON = 500
ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://\S+")
QUOTED = re.compile(r"""(?P<mark>['"`])(?:~|\.\.?|[A-Za-z]:(?=\\))?[/\\][^'"`]+(?P=mark)""")
PATH = re.compile(r"""(?<![\w.)\]])(?:~|\.\.?|[A-Za-z]:(?=\\))?[/\\][^\s'"`,;:()<>]+""")
MARKUP = str.maketrans("<>", "()")
"""Messages name objects as `<Thing at 0x1>`: no markup may stand in a record."""


def reason(error: BaseException) -> str:
    """An error in one line: its kind, where it is no refusal of ours, and what it says."""
    name = "" if isinstance(error, MhcBenchError) else f"{type(error).__name__}: "
    return f"{name}{' '.join(str(error).split())[:LONGEST_REASON]}"


def without_place(text: str) -> str:
    """A run's state without the advice where to read more: that file is on this machine alone."""
    return re.sub(r"; see \S+$", "", text)


def scrubbed(text: str) -> str:
    """A reason that may be published: no path, address or token, nothing that acts as markup or formula."""
    text = hidden(QUOTED.sub("(path)", text))  # a home hidden first would end a path at a space
    for pattern, word in ((ADDRESS, "(address)"), (PATH, "(path)")):
        text = pattern.sub(word, text)
    line = "".join(each if each.isprintable() else " " for each in text.translate(MARKUP))
    plain = re.sub("javascript:", "javascript ", " ".join(line.split()), flags=re.IGNORECASE)
    return plain.lstrip("=+@- ")[:LONGEST_REASON] or "no reason was given"


def record_failure(run: RunConfig, folder: Path, text: str) -> None:
    """Write the record of an attempt that failed, unless the last one failed in the same way.

    A failure to do so is told and goes no further: the run's own failure must not be hidden by it.
    """
    said = scrubbed(text)
    try:
        if not (folder / RECORD_FILE).exists() and _last(folder) != (_status(folder), said):
            write_attempt(run, folder, said)
    except (OSError, ValueError, MhcBenchError) as error:
        print(f"note: the failure has no record: {reason(error)}", flush=True)


def _status(folder: Path) -> str:
    return "partial" if (folder / TRAINING_FILE).exists() else "failed"


def _last(folder: Path) -> tuple[str, str | None] | None:
    """How the last attempt ended, and why."""
    earlier = attempts(folder)
    return ((last := read_record(earlier[-1])).status, last.failure) if earlier else None

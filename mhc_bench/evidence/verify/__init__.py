"""`mhc-bench verify`: everything about records that can be checked without training, all problems at once.

Digests show that files belong together, not that anyone is honest: only a repetition shows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mhc_bench.evidence.reproduction import parse_reproduction

# the checks register themselves
from mhc_bench.evidence.verify import (  # noqa: F401
    configuration,
    depth,
    form,
    pairing,
    plausible,
    scores,
    training,
    tuned,
)
from mhc_bench.evidence.verify.checks import (
    CHECKS,
    Note,
    Problem,
    Submission,
    Tools,
    UnavailableError,
    printable,
    run_checks,
)
from mhc_bench.evidence.verify.intake import INTAKE, Intake, read_all
from mhc_bench.evidence.verify.report import Report

NO_TOOLS = Tools()


def verify(paths: Sequence[Path], tools: Tools = NO_TOOLS) -> Report:
    """Check every record at or below `paths`.

    Args:
        tools: what recomputes ids and parameters; without them those checks are skipped with a note.

    Raises:
        UsageError: a path that does not exist, or no record at all.
    """
    intake = read_all(paths)
    problems, notes = run_checks(Submission(tuple(intake.entries), tools))
    wrong, told = _reproductions(intake)
    return Report(
        records=len(intake.entries),
        problems=(*intake.problems, *problems, *wrong),
        notes=(*intake.notes, *notes, *told),
    )


def _reproductions(intake: Intake) -> tuple[list[Problem], list[Note]]:
    """Reproductions that are damaged or name no record beside them, and what the others say."""
    digests = {(entry.path.parent, entry.record.digest) for entry in intake.entries}
    problems, notes = [], []
    for path, data in intake.reproductions:
        file = printable(path)
        try:
            told = parse_reproduction(data)
        except ValueError as error:
            problems.append(
                Problem(file, "reproduction", printable(error), "a reproduction (docs/records.md)")
            )
            continue
        if (path.parent, told.record) in digests:
            by = f" by {printable(told.by)}" if told.by else ""
            notes.append(Note(file, "reproduction", f"reproduced{by}: {told.verdict}"))
        else:
            found = f"of record {told.record[:16]}"
            problems.append(Problem(file, "reproduction", found, "the digest of a record beside it"))
    return problems, notes


def explained() -> dict[str, str]:
    """Every check by name, with the line that says what it proves."""
    told = {"reproduction": "a reproduction names a record that stands beside it"}
    return {**INTAKE, **{check.name: check.proves for check in CHECKS.values()}, **told}


__all__ = ["Note", "Problem", "Report", "Submission", "Tools", "UnavailableError", "explained", "verify"]

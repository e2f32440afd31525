"""`mhc-bench verify`: everything about records that can be checked without training, all problems at once.

Digests show that files belong together, not that anyone is honest: only a repetition shows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
    run_checks,
)
from mhc_bench.evidence.verify.intake import INTAKE, read_all
from mhc_bench.evidence.verify.report import Report
from mhc_bench.evidence.verify.reproductions import REPRODUCTION, check_reproductions

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
    wrong, told = check_reproductions(intake)
    return Report(
        records=len(intake.entries),
        problems=(*intake.problems, *problems, *wrong),
        notes=(*intake.notes, *notes, *told),
    )


def explained() -> dict[str, str]:
    """Every check by name, with the line that says what it proves."""
    return {**INTAKE, **{check.name: check.proves for check in CHECKS.values()}, **REPRODUCTION}


__all__ = ["Note", "Problem", "Report", "Submission", "Tools", "UnavailableError", "explained", "verify"]

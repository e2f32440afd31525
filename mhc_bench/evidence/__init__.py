"""Evidence is plain data: records, and the statistics, tables and figures made from records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mhc_bench.evidence.assemble import RunEvidence, assemble_record, thin_curve
from mhc_bench.evidence.record import (
    GAIN_BACKWARD,
    GAIN_FORWARD,
    GRADIENT_NORM,
    LOSS,
    Curve,
    Record,
    StepTime,
    json_schema,
)
from mhc_bench.evidence.store import read_record, read_records, write_record

if TYPE_CHECKING:
    from mhc_bench.evidence.leaderboard import build_leaderboard, load_board, readme_fragment, render_summary

LEADERBOARD = frozenset({"build_leaderboard", "load_board", "readme_fragment", "render_summary"})


def __getattr__(name: str) -> Any:
    # Reading a record must not wait for the plotting library.
    if name in LEADERBOARD:
        from mhc_bench.evidence import leaderboard

        return getattr(leaderboard, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "GAIN_BACKWARD",
    "GAIN_FORWARD",
    "GRADIENT_NORM",
    "LOSS",
    "Curve",
    "Record",
    "RunEvidence",
    "StepTime",
    "assemble_record",
    "build_leaderboard",
    "json_schema",
    "load_board",
    "read_record",
    "read_records",
    "readme_fragment",
    "render_summary",
    "thin_curve",
    "write_record",
]

"""All outcomes of one variant, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from mhc_bench.kit.outcome import Outcome, Status

COLOURS: dict[Status, str] = {"pass": "green", "fail": "bold red", "skip": "dim"}


@dataclass(frozen=True)
class Report:
    """What the conformance kit finds of one variant on one backbone."""

    variant: str
    backbone: str
    options: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that it fails."""
        return tuple(each for each in self.outcomes if each.status == "fail")

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self) | {"conforms": not self.failures}, indent=1)

    def to_table(self) -> Table:
        """A row for each check."""
        table = Table("check", "result", "reason or measure", "line", box=None, pad_edge=False)
        table.columns[0].no_wrap = True
        table.columns[3].overflow = "fold"
        for each in self.outcomes:
            result = f"[{COLOURS[each.status]}]{each.status}[/]"
            table.add_row(each.check, result, each.reason.replace("[", r"\["), each.line)
        return table

    def summary(self) -> str:
        """One line."""
        passed = sum(each.status == "pass" for each in self.outcomes)
        skipped = sum(each.status == "skip" for each in self.outcomes)
        counts = f"{passed} passed, {len(self.failures)} failed, {skipped} not applicable"
        verdict = "does not conform" if self.failures else "conforms"
        return f"{self.variant} on {self.backbone} {verdict}: {counts}"

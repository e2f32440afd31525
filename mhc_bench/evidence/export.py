"""The leaderboard as data: tidy CSV (one row per variant and metric) and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.claims import as_data
from mhc_bench.evidence.collate import Arm, Board, Cell, Row
from mhc_bench.evidence.facts import facts
from mhc_bench.evidence.paper import findings
from mhc_bench.evidence.quantities import Quantity
from mhc_bench.evidence.tables import headline_quantities, score_quantities, unpaired_notes

COLUMNS = (
    "suite",
    "arm",
    "protocol_id",
    "variant",
    "metric",
    "unit",
    "n",
    "mean",
    "sd",
    "min",
    "max",
    "difference",
    "low",
    "high",
    "pairs",
    "p",
    "p_holm",
    "detectable",
    "detectable_low",
    "detectable_high",
    "seeds_needed",
    "verdict",
)


def all_quantities(arm: Arm) -> list[Quantity]:
    """Everything that a table of this arm shows."""
    gold = [q.task_gold_quantity(name) for name in arm.tasks]
    return [*headline_quantities(arm), *score_quantities(arm), *gold, *q.STABILITY, *q.COST]


def metric_rows(board: Board) -> list[dict[str, Any]]:
    """One row per arm, variant and metric; unscaled values in the named unit, None where not measured."""
    return [
        {"suite": board.suite, "arm": arm.name, "protocol_id": arm.protocol_id, **metric(arm, row, quantity)}
        for arm in board.arms
        for row in arm.rows
        for quantity in all_quantities(arm)
    ]


def metric(arm: Arm, row: Row, quantity: Quantity) -> dict[str, Any]:
    """One quantity of one variant: unscaled, None where there is none."""
    cell = arm.cell(row, quantity)
    return {
        "variant": row.variant,
        "metric": quantity.key,
        "unit": quantity.unit,
        "n": cell.spread.n,
        "mean": cell.spread.mean,
        "sd": cell.spread.sd,
        "min": min(cell.values.values(), default=None),
        "max": max(cell.values.values(), default=None),
        **_difference(cell),
    }


def _difference(cell: Cell) -> dict[str, Any]:
    found = cell.difference
    if found is None:
        return {**dict.fromkeys(COLUMNS[COLUMNS.index("difference") : -1]), "verdict": ""}
    detectable = found.detectable
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "pairs": found.n,
        "p": found.p,
        "p_holm": cell.adjusted.p if cell.adjusted else None,
        "detectable": detectable.value if detectable else None,
        "detectable_low": detectable.low if detectable else None,
        "detectable_high": detectable.high if detectable else None,
        "seeds_needed": cell.seeds_needed,
        "verdict": cell.verdict,
    }


def to_csv(board: Board) -> str:
    """Tidy CSV, UTF-8, one line per variant and metric; an empty field was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(metric_rows(board))
    return text.getvalue()


def to_json(board: Board) -> str:
    """The same metrics, with the tasks, the notes and the digest of every record."""
    content = {
        "suite": board.suite,
        "arms": [_arm(arm) for arm in board.arms],
        "metrics": metric_rows(board),
        "claims": [as_data(one) for arm in board.arms for one in findings(arm)],
    }
    return _by_line(content) + "\n"


def _by_line(content: dict[str, Any]) -> str:
    """JSON with one line for each entry of a list: a diff shows whole rows, and C writes them, not Python."""
    parts = []
    for key, value in sorted(content.items()):
        lines = [_compact(each) for each in value] if isinstance(value, list) else None
        text = _compact(value) if lines is None else "[\n" + ",\n".join(lines) + "\n]"
        parts.append(f"{_compact(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "protocol_id": arm.protocol_id,
        "facts": dict(facts(arm)),
        "gaps": unpaired_notes(arm),
        "tasks": {name: task.model_dump(include=TASK_FIELDS) for name, task in arm.tasks.items()},
        "runs": [
            {
                "variant": record.identity.variant,
                "seed": record.identity.seed,
                "status": record.status,
                "validation_loss": record.validation_loss,
                "record": record.digest,
                "reproductions": [
                    {"by": told.by, "verdict": told.verdict}
                    for told in arm.reproductions.get(record.digest, ())
                ],
            }
            for record in arm.records
        ],
    }


TASK_FIELDS = {"metric", "n", "shots", "version", "chance", "prior"}

"""Records as a Hugging Face dataset folder: Parquet tables and a card that `datasets` reads without code."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData

from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.export import metric_rows
from mhc_bench.evidence.markdown import render
from mhc_bench.evidence.record import Record
from mhc_bench.evidence.reproduction import read_reproductions
from mhc_bench.evidence.store import read_records
from mhc_bench.files import atomic_folder

TABLES = {
    "runs": "one row per run: what it was, what became of it, its losses and its cost",
    "scores": "one row per run and downstream task",
    "curves": "one row per run, curve and sampled step; null where the value was not finite",
    "table": "the leaderboard's rows: per variant and metric the mean over seeds and the paired difference",
}
Row = Mapping[str, Any]


def write_dataset(records_dir: Path, out: Path) -> Path:
    """Write the newest records below `records_dir` to the new folder `out`; they may be of several suites.

    `datasets.load_dataset(OUT, "runs")` reads a table.

    Raises:
        UsageError: no records, records that cannot share a table, or `out` is in use.
        RunError: damaged or contradictory records.
    """
    records = read_records(records_dir)
    tables: dict[str, list[Row]] = {
        "runs": list(_runs(records, records_dir)),
        "scores": [row for record in records for row in _scores(record)],
        "curves": [row for record in records for row in _curves(record)],
        "table": [row for group in _by_suite(records) for row in metric_rows(collate(group))],
    }
    filled = {name: rows for name, rows in tables.items() if rows}
    with atomic_folder(out) as staged:
        for name, rows in filled.items():
            pq.write_table(_arrow(rows), staged / f"{name}.parquet")
        (staged / "README.md").write_text(_card(records, list(filled)), encoding="utf-8")
    return out


def _by_suite(records: Sequence[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.identity.suite].append(record)
    return [groups[name] for name in sorted(groups)]


def _run(record: Record) -> dict[str, Any]:
    """The columns by which tables are joined."""
    names = ("suite", "arm", "protocol_id", "variant", "seed")
    return {**{name: getattr(record.identity, name) for name in names}, "record": record.digest}


def _runs(records: Sequence[Record], records_dir: Path) -> Iterator[Row]:
    reproduced = [told.record for told in read_reproductions(records_dir)]
    for record in records:
        training, step = record.training, record.cost.step_time
        yield {
            **_run(record),
            "status": record.status,
            "failure": record.failure,
            "supersedes": record.supersedes,
            "reproductions": reproduced.count(record.digest),
            "connection": record.identity.connection,
            "options": json.dumps(record.identity.options, sort_keys=True),
            "validation_loss": record.validation_loss,
            "bits_per_byte": record.bits_per_byte,
            "final_training_loss": training.final_loss if training else None,
            "steps": training.steps if training else None,
            "tokens": training.tokens if training else None,
            "parameters": training.parameters.total if training else None,
            "residual_parameters": training.parameters.residual if training else None,
            "flops_per_token": training.flops_per_token if training else None,
            "step_time_ratio": step.ratio_to_baseline if step else None,
            "train_seconds": record.cost.train_seconds,
            "version": record.provenance.version,
            "commit": record.provenance.commit,
        }


def _scores(record: Record) -> Iterator[Row]:
    left_out = {"subtasks", "higher_is_better"}
    for name, task in record.evaluation.tasks.items() if record.evaluation else ():
        yield {**_run(record), "task": name, **task.model_dump(exclude=left_out)}


def _curves(record: Record) -> Iterator[Row]:
    for name, curve in record.mechanism.curves.items() if record.mechanism else ():
        for step, value in zip(curve.steps, curve.values, strict=True):
            yield {**_run(record), "curve": name, "step": step, "value": value}


def _arrow(rows: Sequence[Row]) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table({name: pa.array(values, _type(values)) for name, values in columns.items()})


def _type(values: Sequence[object]) -> pa.DataType:
    """Text, whole numbers or floats; null for a column without a value."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.null()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else pa.string()


def _card(records: Sequence[Record], tables: Sequence[str]) -> str:
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}.parquet"}]}
        for name in tables
    ]
    data = DatasetCardData(
        pretty_name="mhc-bench results", tags=["mhc-bench", "residual-connections"], configs=configs
    )
    content = {
        "runs": len(records),
        "suites": [group[0].identity.suite for group in _by_suite(records)],
        "tables": {name: TABLES[name] for name in tables},
    }
    return f"---\n{data.to_yaml()}\n---\n\n{render('dataset.md.j2', content)}"

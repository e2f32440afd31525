"""The record of a finished run, gathered from what its stages left in the run folder."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mhc_bench.config import RunConfig, SuiteConfig, plain
from mhc_bench.config.identity import PROTOCOL_VERSION
from mhc_bench.evidence import (
    GAIN_BACKWARD,
    GAIN_FORWARD,
    GRADIENT_NORM,
    Curve,
    Record,
    RunEvidence,
    assemble_record,
    read_record,
    thin_curve,
    write_record,
)
from mhc_bench.evidence.items import ITEMS_FILE
from mhc_bench.evidence.parts import Tuning
from mhc_bench.evidence.store import attempts
from mhc_bench.files import file_digest, write_json
from mhc_bench.provenance import commit, lock_hash, machine, versions
from mhc_bench.suite.cost import read_step_time
from mhc_bench.suite.hiding import hidden
from mhc_bench.suite.state import EVALUATION_FILE, RECORD_FILE, TRAINING_FILE, read_json

ORIGIN_FILE = "origin.json"
METRICS_FILE = "metrics.csv"
DEPTH_FILE = "depth.json"
BEFORE_EVALUATION = ("config.yaml", METRICS_FILE, "probes.csv", "experts.csv", TRAINING_FILE)
OF_EVALUATION = (EVALUATION_FILE, ITEMS_FILE, "samples/*")
CURVE_COLUMNS = {
    GRADIENT_NORM: "gradient_norm",
    GAIN_FORWARD: "composite_forward_gain",
    GAIN_BACKWARD: "composite_backward_gain",
}
"""Curve of the record -> column of `metrics.csv`."""


def write_origin(
    folder: Path, command: str, overrides: list[str], suite: SuiteConfig, tuning: Tuning
) -> None:
    """Keep how a run was asked for, and beside which others, for its record."""
    origin = {
        "command": command,
        "overrides": overrides,
        "note": suite.note,
        "started": {"seeds": suite.seeds, "variants": list(suite.variants)},
        "tuning": tuning.model_dump(mode="json"),
    }
    write_json(folder / ORIGIN_FILE, origin)


def record_run(run: RunConfig, folder: Path) -> Record:
    """Write `record.json` of a run that is trained and, where its suite has tasks, evaluated."""
    evidence = _evidence(run, folder, (*BEFORE_EVALUATION, *OF_EVALUATION))
    record = assemble_record(dataclasses.replace(evidence, evaluation=_evaluation(run, folder)))
    write_record(record, folder / RECORD_FILE)
    return record


def write_attempt(run: RunConfig, folder: Path, failure: str) -> Record:
    """Write the next `record-<n>.json`: of an attempt that failed, in training or after it."""
    record = assemble_record(dataclasses.replace(_evidence(run, folder, BEFORE_EVALUATION), failure=failure))
    write_record(record, folder / f"record-{len(attempts(folder)) + 1}.json")
    return record


def _evidence(run: RunConfig, folder: Path, side_files: Sequence[str]) -> RunEvidence:
    """All that the run folder tells but the evaluation."""
    origin = read_json(folder / ORIGIN_FILE) or {}
    training, earlier = read_json(folder / TRAINING_FILE), attempts(folder)
    return RunEvidence(
        configuration=hidden(plain(run)),
        provenance=provenance(run, training or {}),
        command=hidden(origin.get("command", "")),
        overrides=hidden(origin.get("overrides", [])),
        note=hidden(origin.get("note", "")),
        started=_started(origin.get("started"), folder),
        tuning=origin.get("tuning"),
        protocol_version=PROTOCOL_VERSION,
        training=training,
        curves=read_curves(folder / METRICS_FILE) if training else {},
        depth=read_json(folder / DEPTH_FILE),
        step_time=read_step_time(folder.parents[1], run),
        side_files=_side_files(folder, side_files),
        supersedes=read_record(earlier[-1]).digest if earlier else None,
    )


def _started(said: dict[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    """What the command set out to run, and the other runs of the protocol that stand in the same folder.

    So runs that were started one by one, with `mhc-bench train`, name each other.
    """
    if said is None:
        return None
    named = {f"{variant}/seed{seed}" for variant in said["variants"] for seed in said["seeds"]}
    there = {path.parts[-3:-1] for path in folder.parents[1].glob(f"*/seed*/{ORIGIN_FILE}")}
    return {**said, "others": sorted({"/".join(names) for names in there} - named)}


def _evaluation(run: RunConfig, folder: Path) -> dict[str, Any] | None:
    """The evaluation's summary, with the settings that it was made under and the digest of its items."""
    summary = (read_json(folder / EVALUATION_FILE) or {}).get("summary")
    if summary is None:
        return None
    items = folder / ITEMS_FILE
    return {
        **summary,
        "dtype": run.training.precision,
        "batch_size": run.evaluation.batch_size,
        "items": hashlib.sha256(gzip.decompress(items.read_bytes())).hexdigest() if items.exists() else None,
    }


def provenance(run: RunConfig, training: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record's provenance, here and now; of the training its ranks and GPUs."""
    head, dirty = commit()
    here, packages = machine(), versions()
    changes = training.get("hardware", [])
    return {
        "commit": head or None,
        "dirty": dirty,
        "version": packages.pop("mhc-bench", "unknown"),
        "python": here["python"],
        "platform": here["system"],
        "packages": packages,
        "lock_hash": lock_hash(),
        "hardware": {
            "cpu": here["processor"],
            "threads": run.hardware.threads,
            "processes": training.get("world_size", 1),
            "memory_bytes": here["memory_bytes"],
            "gpus": training.get("gpus", []),
        },
        "hardware_changes": changes if len(changes) > 1 else [],
        "sharding": training.get("sharding", {}),
    }


def _side_files(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Digests of what a record rests on and does not hold itself."""
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths if path.is_file()}


def read_curves(path: Path) -> dict[str, Curve]:
    """The curves that the figures draw, thinned, from a run's `metrics.csv`."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    curves = {name: _curve(rows, column) for name, column in CURVE_COLUMNS.items()}
    return {name: curve for name, curve in curves.items() if curve.steps}


def _curve(rows: list[dict[str, str]], column: str) -> Curve:
    points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
    return thin_curve([step for step, _ in points], [value for _, value in points])

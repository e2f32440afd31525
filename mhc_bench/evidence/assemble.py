"""A record out of what the stages of a run left behind, all as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from mhc_bench.errors import RunError
from mhc_bench.evidence.record import LOSS, SCHEMA_VERSION, Curve, Record

LONGEST_CURVE = 200
"""Points of a curve in a record: enough for a figure."""
TRAINING_ELSEWHERE = (
    "status",
    "data_identity",
    "shared_weight_digest",
    "token_stream_digest",
    "weight_digest",
    "start_digest",
    "loss_curve",
    "probes",
    "threads",
    "world_size",
    "gpus",
    "sharding",
    "hardware",
    "numerics",
)
"""Fields of the training summary that have their own place in a record."""
EVALUATION_ELSEWHERE = ("mean",)
"""Derived from the tasks, so not kept."""


@dataclass(frozen=True)
class RunEvidence:
    """The parts of one run. Mappings hold plain values: what the stages wrote as JSON."""

    configuration: Mapping[str, Any]
    """The resolved run configuration."""
    provenance: Mapping[str, Any]
    """Fields of `Provenance`."""
    command: str
    overrides: Sequence[str] = ()
    note: str = ""
    protocol_version: int = 1
    started: Mapping[str, Any] | None = None
    """Fields of `Started`."""
    tuning: Mapping[str, Any] | None = None
    """Fields of `Tuning`."""
    training: Mapping[str, Any] | None = None
    """The training summary; None for a run that failed before its training ended."""
    evaluation: Mapping[str, Any] | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Gain and gradient-norm curves by the names in `record.CURVES`; the loss curve is in the summary."""
    depth: Mapping[str, Any] | None = None
    """Fields of `Depth`; None where it was not measured."""
    step_time: Mapping[str, Any] | None = None
    """Fields of `StepTime`; None where it was not measured."""
    side_files: Mapping[str, str] = field(default_factory=dict)
    failure: str | None = None
    """Why the run is not finished, in one line; with a training it is partial, without one failed."""
    supersedes: str | None = None
    """The digest of the record of an earlier attempt."""


def assemble_record(run: RunEvidence) -> Record:
    """The record of a run. Numbers that are not finite become null.

    Raises:
        RunError: naming the run and the first field that does not fit the schema.
    """
    content = plain({"schema_version": SCHEMA_VERSION, **_described(run), **_measured(run)})
    try:
        return Record.model_validate_json(json.dumps(content, allow_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        name = f"{run.configuration.get('variant_name')} seed {run.configuration.get('seed')}"
        raise RunError(f"no record for {name}: {where or 'record'}: {first['msg']}") from error


def _described(run: RunEvidence) -> dict[str, Any]:
    return {
        "identity": _identity(run.configuration) | {"protocol_version": run.protocol_version},
        "configuration": run.configuration,
        "overrides": list(run.overrides),
        "command": run.command,
        "note": run.note,
        "provenance": run.provenance,
        "started": run.started,
        "tuning": run.tuning,
        "side_files": run.side_files,
        "failure": run.failure,
        "supersedes": run.supersedes,
        "status": _status(run),
    }


def _identity(configuration: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("suite", "arm", "protocol_id", "cost_id", "seed")
    variant = configuration.get("variant") or {}
    return {
        **{name: configuration[name] for name in kept if name in configuration},
        "variant": configuration.get("variant_name"),
        "connection": variant.get("connection"),
        "options": variant.get("options") or {},
        "perturbation": variant.get("perturbation") or 0.0,
    }


def _status(run: RunEvidence) -> str:
    if run.training is None:
        return "failed"
    if run.failure:
        return "partial"
    return str(run.training["status"]) if _ended_well(run.training) else "diverged"


def _ended_well(training: Mapping[str, Any]) -> bool:
    """Whether the validation after the last step was finite: without it there is no result."""
    last = training["validation"][-1] if training["validation"] else {}
    return last.get("step") == training["steps"] and _finite(last.get("loss")) is not None


def _measured(run: RunEvidence) -> dict[str, Any]:
    cost = {
        "step_time": run.step_time,
        "train_seconds": run.training["seconds"] if run.training else None,
        "evaluate_seconds": run.evaluation["seconds"] if run.evaluation else None,
    }
    evaluation = _without(run.evaluation, EVALUATION_ELSEWHERE) if run.evaluation else None
    return {**_trained(run), "evaluation": evaluation, "cost": cost}


def _trained(run: RunEvidence) -> dict[str, Any]:
    if run.training is None:
        return {"data": {}, "digests": None, "training": None, "mechanism": None, "numerics": None}
    summary = run.training
    curves = {name: curve.model_dump() for name, curve in run.curves.items()}
    points = summary["loss_curve"]
    loss = thin_curve([point["step"] for point in points], [point["loss"] for point in points])
    return {
        "data": summary["data_identity"],
        "numerics": summary.get("numerics"),
        "digests": {
            "shared_weights": summary["shared_weight_digest"],
            "token_stream": summary["token_stream_digest"],
            "weights": summary["weight_digest"],
            "start": summary.get("start_digest"),
        },
        "training": {
            **_without(summary, TRAINING_ELSEWHERE),
            # A run that diverged in its first step has neither.
            "gradient_norm": summary["gradient_norm"] or None,
            "step_seconds": summary["step_seconds"] or None,
        },
        "mechanism": {
            "probes": summary["probes"],
            "curves": {**curves, LOSS: loss.model_dump()},
            "depth": run.depth,
        },
    }


def thin_curve(steps: Sequence[int], values: Sequence[float | None], points: int = LONGEST_CURVE) -> Curve:
    """At most `points` of a curve, evenly spaced by index, first and last kept."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(points, len(steps))).round().astype(int))
    kept = [_finite(values[index]) for index in chosen]
    return Curve(steps=tuple(int(steps[index]) for index in chosen), values=tuple(kept))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _without(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def plain(content: Any) -> Any:
    """`content` as JSON can hold it: text keys, lists, and null for NaN and Infinity."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if isinstance(content, (float, np.floating)):
        return _finite(float(content))
    return int(content) if isinstance(content, np.integer) else content

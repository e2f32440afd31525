"""What a finished training was: plain values, written as `training.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from mhc_bench.errors import RunError
from mhc_bench.files import write_json

if TYPE_CHECKING:
    from mhc_bench.training.history import History

SUMMARY_FILE = "training.json"
CURVE_POINTS = 200
SPIKE = 0.1
SPIKE_WINDOW = 201
SPIKE_MINIMUM = 20
FINAL_SHARE = 0.05


@dataclass
class TrainingSummary:
    """One training, complete or diverged. Losses in nats per token."""

    status: Literal["complete", "diverged"]
    steps: int
    """Steps taken; a diverged run ends before the step whose gradient was not finite."""
    tokens: int
    parameters: dict[str, int]
    flops_per_token: int
    data_identity: dict[str, str]
    shared_weight_digest: str
    """Of the start weights that all variants share; of an A/A run, before the perturbation."""
    weight_digest: str
    """Of the final weights."""
    token_stream_digest: str
    initial_loss: float | None
    """Loss of the first batch, before any update."""
    validation: list[dict[str, float]]
    loss_curve: list[dict[str, float]]
    """At most 200 points, each the mean loss of the steps since the one before."""
    final_loss: float | None
    """Mean over the last 5 % of the steps."""
    gradient_norm: dict[str, float]
    """Before clipping: mean, max, p99."""
    spikes: int
    """Steps whose loss lies more than 0.1 above the median of the 201 steps that end with it (fewer at the
    start, at least 20)."""
    nonfinite_steps: int
    restarts: int
    step_seconds: dict[str, float]
    """p10, p50, p90; validation, probes and checkpoints apart. Of the steps on the last hardware alone."""
    tokens_per_second: float
    """Tokens of a step over the median step's seconds."""
    peak_memory_bytes: int
    """Largest over the ranks: of the process on a CPU, of the tensors on a GPU."""
    seconds: float
    probes: dict[str, dict[str, float]]
    """Of each probe the final, largest and smallest value."""
    diverged_step: int | None
    threads: int
    world_size: int
    gpus: list[str]
    sharding: dict[str, str] = field(default_factory=dict)
    """What FSDP2 split and rounded where; empty without it."""
    hardware: list[dict[str, Any]] = field(default_factory=list)
    """What the steps ran on, a row for each change. Several: the run's times are not of one machine."""
    final_steps: int | None = None
    """How many steps `final_loss` is the mean of."""
    last_loss: float | None = None
    start_digest: str | None = None
    """Of an A/A run: of all weights after the perturbation."""
    numerics: dict[str, Any] | None = None
    """What decides whether the run can be repeated to the bit (see `numerics.py`)."""
    flops_rule: int = 1
    """By which rule of `mhc_bench.model.counting` FLOPs were counted; a file that does not say is older."""


def read_summary(run_dir: Path) -> TrainingSummary | None:
    """The summary of a finished training, or None before its end.

    Raises:
        RunError: the file is damaged.
    """
    path = run_dir / SUMMARY_FILE
    if not path.exists():
        return None
    try:
        return TrainingSummary(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}): remove it and train again") from error


def write_summary(summary: TrainingSummary, run_dir: Path) -> None:
    """Write `training.json`, whole or not at all."""
    write_json(run_dir / SUMMARY_FILE, dataclasses.asdict(summary))


def history_fields(history: History, batch_tokens: int) -> dict[str, Any]:
    """The fields of a summary that follow from a run's history."""
    losses, seconds = np.array(history.losses), np.array(history.seconds_on_last_hardware())
    steps, last = len(losses), max(1, round(len(losses) * FINAL_SHARE))
    quantiles = (
        dict(zip(("p10", "p50", "p90"), np.quantile(seconds, (0.1, 0.5, 0.9)), strict=True))
        if len(seconds)
        else {}
    )
    return {
        "status": "complete" if history.diverged_step is None else "diverged",
        "steps": steps,
        "tokens": steps * batch_tokens,
        "token_stream_digest": history.chain.hex(),
        "initial_loss": history.losses[0] if steps else None,
        "validation": history.validation,
        "loss_curve": loss_curve(history.losses),
        "final_loss": float(losses[-last:].mean()) if steps else None,
        "final_steps": last if steps else None,
        "last_loss": history.losses[-1] if steps else None,
        "gradient_norm": _norms(history.norms),
        "spikes": count_spikes(history.losses),
        "nonfinite_steps": int(history.diverged_step is not None),
        "step_seconds": {name: float(value) for name, value in quantiles.items()},
        "tokens_per_second": batch_tokens / float(quantiles["p50"]) if quantiles else 0.0,
        "seconds": history.elapsed(),
        "probes": {
            name: _extremes([value for _, value in points]) for name, points in history.probes.items()
        },
        "diverged_step": history.diverged_step,
        "hardware": history.hardware,
    }


def count_spikes(losses: list[float]) -> int:
    """Steps above the rolling median by more than 0.1 nats (rule at `TrainingSummary.spikes`)."""
    series = pd.Series(losses, dtype="float64")
    median = series.rolling(SPIKE_WINDOW, min_periods=SPIKE_MINIMUM).median()
    return int((series > median + SPIKE).sum())


def loss_curve(losses: list[float]) -> list[dict[str, float]]:
    """Mean losses of at most `CURVE_POINTS` equal stretches, each at its last step."""
    width = max(1, -(-len(losses) // CURVE_POINTS))
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [
        {"step": min((number + 1) * width, len(losses)), "loss": float(np.mean(part))}
        for number, part in enumerate(parts)
    ]


def _norms(norms: list[float]) -> dict[str, float]:
    if not norms:
        return {}
    values = np.array(norms)
    return {"mean": float(values.mean()), "max": float(values.max()), "p99": float(np.quantile(values, 0.99))}


def _extremes(values: list[float]) -> dict[str, float]:
    return {"final": values[-1], "max": max(values), "min": min(values)}

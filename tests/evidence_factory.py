"""Records as a suite would leave them, without training anything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mhc_bench.evidence import (
    GAIN_BACKWARD,
    GAIN_FORWARD,
    GRADIENT_NORM,
    Curve,
    Record,
    RunEvidence,
    assemble_record,
    write_record,
)

SEEDS = (0, 1, 2)
LOSSES = {
    "baseline": (1.108, 1.143, 1.135),
    "hc": (1.055, 1.074, 1.035),
    "mhc": (1.098, 1.125, 1.076),
}
"""Validation losses whose paired differences are known by hand."""
TASKS = {"world_bbh": (0.40, 0.315), "world_mmlu": (0.80, 0.25), "world_trivia": (0.45, None)}
STEPS = 120


def sha(*parts: object) -> str:
    """A digest that depends on `parts`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def training_summary(variant: str, seed: int, loss: float, arm: str, diverged: int | None) -> dict[str, Any]:
    """What training writes, for a run that ended with this validation loss, or diverged at this step."""
    last = STEPS if diverged is None else diverged
    steps = list(range(5, last + 1, 5))
    fall = [3.0 * float(np.exp(-step / 40)) + loss for step in steps]
    residual = {"baseline": 0, "hc": 6_208, "mhc": 49_368}.get(variant, 100)
    end: float = loss if diverged is None else float("nan")
    return {
        "status": "complete" if diverged is None else "diverged",
        "steps": last,
        "tokens": last * 1024,
        "parameters": {
            "total": 300_000 + residual,
            "active": 280_000,
            "vocabulary": 60_000,
            "residual": residual,
        },
        "flops_per_token": 1_800_000,
        "data_identity": {"source": "world", "fingerprint": sha("world"), "tokenizer": sha("words")},
        "shared_weight_digest": sha("weights", seed, arm),
        "weight_digest": sha(variant, seed, arm),
        "token_stream_digest": sha("tokens", seed, last),
        "initial_loss": 6.2,
        "validation": [
            {
                "step": 60,
                "tokens": 61_440,
                "loss": loss + 0.6,
                "perplexity": 5.0,
                "bits_per_byte": loss / 2 + 0.3,
            },
            {
                "step": last,
                "tokens": last * 1024,
                "loss": end,
                "perplexity": float(np.exp(end)),
                "bits_per_byte": end / 2,
            },
        ],
        "loss_curve": [{"step": step, "loss": value} for step, value in zip(steps, fall, strict=True)],
        "final_loss": end,
        "gradient_norm": {"mean": 0.8, "max": 4.5 + seed, "p99": 3.0},
        "spikes": seed if variant == "hc" else 0,
        "nonfinite_steps": 0 if diverged is None else 1,
        "restarts": 0,
        "step_seconds": {"p10": 0.030, "p50": 0.031, "p90": 0.040},
        "tokens_per_second": 33_000.0,
        "peak_memory_bytes": 512 * 2**20,
        "seconds": 4.2,
        "probes": {
            GAIN_FORWARD: {"final": 1.0, "max": gain(variant, arm, seed), "min": 1.0},
            GAIN_BACKWARD: {"final": 1.1, "max": gain(variant, arm, seed) * 1.04, "min": 1.0},
        },
        "diverged_step": diverged,
        "threads": 1,
        "world_size": 1,
    }


def gain(variant: str, arm: str, seed: int) -> float:
    """The peak composite gain of a variant."""
    if variant == "hc":
        return 1684.0 / (seed + 1) if arm != "hot" else 7.5e20 / 10**seed
    return 1.0 if variant == "baseline" else 1.16


def curves(variant: str, arm: str, seed: int, last: int) -> dict[str, Curve]:
    """Gain and gradient-norm curves up to the step `last`."""
    steps = tuple(range(0, last + 1, 10))
    peak = gain(variant, arm, seed)
    rise = tuple(peak ** min(1.0, step / 60) for step in steps)
    norms = tuple(4.5 * float(np.exp(-step / 50)) + 0.3 + 0.1 * seed for step in steps)
    return {
        GAIN_FORWARD: Curve(steps=steps, values=rise),
        GAIN_BACKWARD: Curve(steps=steps, values=tuple(value**1.05 for value in rise)),
        GRADIENT_NORM: Curve(steps=steps, values=norms),
    }


def evaluation_summary(variant: str, seed: int) -> dict[str, Any]:
    """What evaluation writes."""
    lift = {"baseline": 0.0, "hc": 0.1, "mhc": 0.05}.get(variant, 0.02)
    tasks = {
        name: {
            "value": level + lift * (1 + 0.3 * seed) + 0.03 * seed,
            "metric": "acc,none",
            "stderr": 0.031,
            "n": 250,
            "shots": 3,
            "version": "1.0",
            "chance": chance,
            "prior": 0.33,
            "request_hash": sha(name),
            "gold_loglikelihood": None
            if name == "world_trivia"
            else -2.0 + lift * (1 + 0.2 * seed) + 0.01 * seed,
            "higher_is_better": True,
            "subtasks": {
                "easy": {"value": 0.5, "n": 125, "gold_loglikelihood": -1.0, "chance": 0.5, "prior": 0.5}
            },
        }
        for name, (level, chance) in TASKS.items()
    }
    return {"tasks": tasks, "mean": 0.5, "seconds": 3.5}


def configuration(suite: str, arm: str, variant: str, seed: int) -> dict[str, Any]:
    """A resolved run configuration."""
    rate = 0.1 if arm == "hot" else 0.004
    return {
        "suite": suite,
        "arm": arm,
        "protocol_id": sha(suite, arm)[:10],
        "cost_id": sha(suite, arm, "cpu")[:10],
        "variant_name": variant,
        "variant": {"connection": variant, "options": {} if variant == "baseline" else {"streams": 4}},
        "seed": seed,
        "model": {"family": "llama", "backbone": {"hidden_size": 64, "num_hidden_layers": 4}},
        "training": {"steps": STEPS, "batch_tokens": 1024, "sequence_length": 128, "precision": "fp32"},
        "optimizer": {
            "learning_rate": rate,
            "clip": 1.0,
            "schedule": {"shape": "linear", "drops": {0.8: 0.3}},
        },
    }


PROVENANCE: dict[str, Any] = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "version": "0.1.0",
    "python": "3.12.3",
    "platform": "Linux x86_64",
    "packages": {"torch": "2.13.0"},
    "hardware": {"cpu": "A processor", "threads": 1, "processes": 1, "memory_bytes": 2**33, "gpus": []},
}


def step_time(variant: str) -> dict[str, Any]:
    """An interleaved measurement."""
    ratio = {"baseline": 1.0, "hc": 1.7, "mhc": 2.4}.get(variant, 1.2)
    return {
        "ratio_to_baseline": ratio,
        "baseline_tokens_per_second": 33_000.0,
        "tokens_per_second": 33_000.0 / ratio,
        "quantiles": {"p10": 0.03 * ratio, "p50": 0.031 * ratio, "p90": 0.04 * ratio},
        "n": 20,
    }


def make_evidence(
    variant: str = "baseline",
    seed: int = 0,
    *,
    suite: str = "quick",
    arm: str = "",
    loss: float | None = None,
    diverged: int | None = None,
) -> RunEvidence:
    """The parts of one run."""
    level = loss if loss is not None else LOSSES[variant][seed]
    last = STEPS if diverged is None else diverged
    return RunEvidence(
        configuration=configuration(suite, arm, variant, seed),
        provenance=PROVENANCE,
        command=f"mhc-bench run {suite}",
        note="Rate: the baseline's best of three on development seeds.",
        training=training_summary(variant, seed, level, arm, diverged),
        evaluation=evaluation_summary(variant, seed) if diverged is None else None,
        curves=curves(variant, arm, seed, last),
        step_time=step_time(variant),
    )


def make_record(variant: str = "baseline", seed: int = 0, **options: Any) -> Record:
    """One record; options as `make_evidence`."""
    return assemble_record(make_evidence(variant, seed, **options))


def suite_records(**options: Any) -> list[Record]:
    """Three variants, three seeds, one protocol."""
    return [make_record(variant, seed, **options) for variant in LOSSES for seed in SEEDS]


def study_records() -> list[Record]:
    """Two arms; in the second, one run of HC diverges."""
    mild = suite_records(suite="study", arm="mild")
    hot = [
        make_record(
            variant,
            seed,
            suite="study",
            arm="hot",
            loss=LOSSES[variant][seed] + 2,
            diverged=70 if (variant, seed) == ("hc", 2) else None,
        )
        for variant in LOSSES
        for seed in SEEDS
    ]
    return [*mild, *hot]


def edited(record: Record, **sections: dict[str, Any]) -> Record:
    """A copy of a record in which fields of the named sections are replaced."""
    content = record.model_dump(mode="json")
    for section, changes in sections.items():
        content[section] = {**(content[section] or {}), **changes}
    return Record.model_validate_json(json.dumps(content))


def write_all(records: list[Record], folder: Path) -> Path:
    """Write records as a suite publishes them, and return the folder."""
    for record in records:
        identity = record.identity
        place = folder / f"{identity.suite}-{identity.protocol_id}" / identity.variant
        write_record(record, place / f"seed{identity.seed}.json")
    return folder

"""From many records to tables: synthetic records on disk, read and collated as published ones are."""

from __future__ import annotations

import hashlib
import math
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mhc_bench.errors import UsageError
from mhc_bench.evidence import GAIN_BACKWARD, GAIN_FORWARD, GRADIENT_NORM, Curve, RunEvidence, assemble_record
from mhc_bench.evidence.record import canonical_json
from mhc_bench.files import write_text

TASKS = ("bbh", "drop", "gsm", "hella", "math", "mmlu", "piqa", "trivia")
SUITE = "synthetic"
STEPS = 1200
PROVENANCE: dict[str, Any] = {
    "commit": "0" * 40,
    "dirty": False,
    "version": "0.1.0",
    "python": "3.12.0",
    "platform": "Linux x86_64",
    "packages": {"torch": "2.13.0"},
    "hardware": {"cpu": "none", "threads": 1, "processes": 1, "memory_bytes": None, "gpus": []},
}


@dataclass
class CollationGrid:
    """How many records: protocols x variants x seeds."""

    protocols: int = 10
    variants: int = 20
    seeds: int = 50

    @property
    def records(self) -> int:
        """All of them."""
        return self.protocols * self.variants * self.seeds


@dataclass
class Phase:
    """One stage: seconds that passed, and seconds that this process computed."""

    name: str
    seconds: float
    cpu_seconds: float


@dataclass
class CollationReport:
    """What a measurement found."""

    grid: CollationGrid
    command: str
    bytes: int
    """Of all records."""
    phases: list[Phase] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first file to the last table; the page apart."""
        return sum(each.seconds for each in self.phases if each.name in TO_TABLES)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rate = {"records": self.grid.records, "seconds": self.seconds, "records_per_second": self.rate}
        return {**asdict(self), **rate}

    @property
    def rate(self) -> float:
        """Records per second, to tables."""
        return self.grid.records / self.seconds

    def to_text(self) -> str:
        """A few lines for a terminal."""
        size = f"{self.grid.records:,} records, {self.bytes / 2**20:,.0f} MiB"
        lines = [f"{size}: to tables in {self.seconds:.1f} s, {self.rate:,.0f} records/s"]
        for each in self.phases:
            lines.append(
                f"  {each.name:<10} {each.seconds:7.2f} s  ({each.cpu_seconds:.2f} s of this process)"
            )
        return "\n".join(lines)


TO_TABLES = ("read", "collate", "tables")


def run_bench_collate(grid: CollationGrid, command: str) -> CollationReport:
    """Write the records to a temporary folder and time each stage from there to tables and page.

    Raises:
        UsageError: fewer than one protocol, variant or seed.
    """
    from mhc_bench.evidence.store import without_collections

    for name, value in asdict(grid).items():
        if value < 1:
            raise UsageError(f"bench collate {name}={value}: expected at least 1")
    with tempfile.TemporaryDirectory() as folder:
        report = CollationReport(grid, command, 0)
        with _phase(report, "write"):
            report.bytes = _write(grid, Path(folder))
        with without_collections():
            _measure(Path(folder), report)
    return report


def _measure(folder: Path, report: CollationReport) -> None:
    from mhc_bench.evidence.collate import collate
    from mhc_bench.evidence.leaderboard import Contents, data_files, to_html
    from mhc_bench.evidence.store import read_with_items

    with _phase(report, "read"):
        records, items = read_with_items(folder)
    with _phase(report, "collate"):
        contents = Contents(collate(records, items))
    with _phase(report, "tables"):
        data_files(contents)
    with _phase(report, "page"):
        to_html(contents, {}, folder)


@contextmanager
def _phase(report: CollationReport, name: str) -> Iterator[None]:
    started, computed = time.perf_counter(), time.process_time()
    yield
    passed = time.perf_counter() - started
    report.phases.append(Phase(name, passed, time.process_time() - computed))


def _write(grid: CollationGrid, folder: Path) -> int:
    """All records, as a suite publishes them; their bytes in all."""
    total = 0
    for protocol in range(grid.protocols):
        for variant in range(grid.variants):
            for seed in range(grid.seeds):
                record = assemble_record(synthetic_run(protocol, variant, seed, grid))
                identity, text = record.identity, canonical_json(record)
                place = folder / f"{SUITE}-{identity.protocol_id}" / identity.variant / f"seed{seed}.json"
                write_text(place, text)
                total += len(text)
    return total


def synthetic_run(protocol: int, variant: int, seed: int, grid: CollationGrid) -> RunEvidence:
    """One run, of about the size of a `quick` record; its numbers are random."""
    drawn = random.Random(f"{protocol} {variant} {seed}")
    name = "baseline" if variant == 0 else f"variant-{variant:03}"
    loss = 1.2 + drawn.gauss(0, 0.03) - 0.002 * variant
    return RunEvidence(
        configuration={
            "suite": SUITE,
            "arm": f"protocol-{protocol:03}" if grid.protocols > 1 else "",
            "protocol_id": _digest("protocol", protocol)[:10],
            "cost_id": _digest("cost", protocol)[:10],
            "variant_name": name,
            "variant": {"connection": name, "options": {"streams": 4}},
            "seed": seed,
            "optimizer": {"learning_rate": 1e-3 * (protocol + 1)},
        },
        provenance=PROVENANCE,
        command=f"mhc-bench run {SUITE}",
        training=_training(drawn, loss, name, protocol, seed),
        evaluation={"tasks": {task: _task(drawn, task) for task in TASKS}, "mean": 0.5, "seconds": 5.0},
        curves={
            GRADIENT_NORM: _curve(drawn, 120, 0.5),
            GAIN_FORWARD: _curve(drawn, 25, 1.2),
            GAIN_BACKWARD: _curve(drawn, 25, 1.2),
        },
        step_time={
            "ratio_to_baseline": 1 + 0.05 * variant,
            "baseline_tokens_per_second": 2e4,
            "tokens_per_second": 2e4,
            "quantiles": {"p10": 0.03, "p50": 0.031, "p90": 0.035},
            "n": 24,
        },
    )


def _training(drawn: random.Random, loss: float, name: str, protocol: int, seed: int) -> dict[str, Any]:
    points = [{"step": step, "loss": 3 * math.exp(-step / 300) + loss} for step in range(6, STEPS + 1, 6)]
    gain = {"final": 1.1, "max": 1.0 + abs(drawn.gauss(0, 1)), "min": 1.0}
    return {
        "status": "complete",
        "steps": STEPS,
        "tokens": STEPS * 1024,
        "parameters": {"total": 300_000, "active": 280_000, "vocabulary": 60_000, "residual": 5_000},
        "flops_per_token": 1_800_000,
        "data_identity": {"source": "synthetic", "fingerprint": _digest("data", protocol)},
        "shared_weight_digest": _digest("weights", protocol, seed),
        "token_stream_digest": _digest("tokens", protocol, seed),
        "weight_digest": _digest(name, protocol, seed),
        "initial_loss": 6.2,
        "final_loss": loss,
        "validation": [_validation(step, loss) for step in (300, 600, 900, STEPS)],
        "loss_curve": points,
        "gradient_norm": {"mean": 0.5, "max": 4.0 + drawn.random(), "p99": 3.0},
        "spikes": 0,
        "nonfinite_steps": 0,
        "restarts": 0,
        "step_seconds": {"p10": 0.030, "p50": 0.031, "p90": 0.040},
        "tokens_per_second": 33_000.0,
        "peak_memory_bytes": 2**29,
        "seconds": 40.0,
        "probes": {GAIN_FORWARD: gain, GAIN_BACKWARD: gain, **{f"probe_{k:02}": gain for k in range(23)}},
        "diverged_step": None,
    }


def _validation(step: int, loss: float) -> dict[str, Any]:
    found = loss + (STEPS - step) / STEPS
    return {
        "step": step,
        "tokens": step * 1024,
        "loss": found,
        "perplexity": math.exp(found),
        "bits_per_byte": 0.35 * found,
    }


def _task(drawn: random.Random, name: str) -> dict[str, Any]:
    part = {"value": 0.5, "n": 125, "gold_loglikelihood": -1.0, "chance": 0.25, "prior": 0.3}
    return {
        "value": min(1.0, max(0.0, 0.5 + drawn.gauss(0, 0.05))),
        "metric": "acc,none",
        "stderr": 0.03,
        "n": 250,
        "shots": 3,
        "version": "1.0",
        "chance": 0.25,
        "prior": 0.3,
        "request_hash": _digest(name),
        "gold_loglikelihood": -2.0 + drawn.gauss(0, 0.1),
        "higher_is_better": True,
        "subtasks": {"easy": part, "hard": part},
    }


def _curve(drawn: random.Random, points: int, level: float) -> Curve:
    steps = tuple(range(0, points * 10, 10))
    return Curve(steps=steps, values=tuple(level + 0.1 * drawn.random() for _ in steps))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()

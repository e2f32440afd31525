"""`mhc-bench bench step`: everything that is measured about a suite's training step, as data and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhc_bench.bench.overhead import Overhead, measure_overhead
from mhc_bench.bench.profiling import StepProfile, profile_steps
from mhc_bench.bench.step import BATCHES, StepReport, measure_steps, threads
from mhc_bench.bench.subject import subjects
from mhc_bench.bench.table import table
from mhc_bench.config import RunConfig
from mhc_bench.provenance import machine, versions

OPERATORS = 12
"""Operators shown: those on which some variant spends most."""


@dataclass(frozen=True)
class BenchStepReport:
    """Figures of one suite's step on this machine."""

    steps: StepReport
    overhead: Overhead
    profiles: dict[str, StepProfile]
    versions: dict[str, str]
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """Tables for a terminal."""
        return "\n\n".join(
            (_steps(self.steps), _floors(self.steps), _overhead(self.overhead), _operators(self))
        )


def run_bench_step(
    configs: Sequence[RunConfig],
    steps: int = 40,
    *,
    warmup: int = 4,
    chunks: int = 6,
    seconds: float | None = None,
) -> BenchStepReport:
    """Measure the step of every configuration of one suite and seed, and what our training adds to it.

    Args:
        steps, warmup, seconds: as `measure_steps`.
        chunks: as `measure_overhead`.

    Raises:
        UsageError: the configurations do not belong together.
    """
    measured = measure_steps(configs, steps, warmup, seconds)
    return BenchStepReport(
        steps=measured,
        overhead=measure_overhead(configs[0], chunks),
        profiles=_profiles(configs),
        versions=versions(),
        machine=machine(),
    )


def _profiles(configs: Sequence[RunConfig]) -> dict[str, StepProfile]:
    with threads(configs[0].hardware.threads):
        made = subjects(configs, BATCHES)
        for subject in made:
            subject.step()
        return {subject.name: profile_steps(subject.step, subject.device) for subject in made}


def _steps(report: StepReport) -> str:
    head = [
        "variant",
        "ms/step",
        "p10",
        "p90",
        f"x {report.baseline}",
        "95 %",
        "tokens/s",
        "step MiB",
        "state MiB",
    ]
    rows = [
        [
            each.variant,
            f"{1e3 * each.quantiles.p50:.1f}",
            f"{1e3 * each.quantiles.p10:.1f}",
            f"{1e3 * each.quantiles.p90:.1f}",
            f"{each.ratio.median:.2f}",
            f"{each.ratio.low:.2f}-{each.ratio.high:.2f}",
            f"{each.tokens_per_second:,.0f}",
            f"{each.peak_step_bytes / 2**20:.1f}",
            f"{each.state_bytes / 2**20:.1f}",
        ]
        for each in report.variants
    ]
    n = report.variants[0].n
    title = (
        f"Step of {report.suite} ({report.protocol_id}), {report.tokens_per_step} tokens, {report.device}, "
        f"{report.threads} thread{'s' if report.threads > 1 else ''}, {n} rounds in turn:"
    )
    return f"{title}\n{table(head, rows)}"


def _floors(report: StepReport) -> str:
    head = [
        "variant",
        "GFLOP",
        "at matmul rate",
        "streams MiB",
        "at copy rate",
        "unfused",
        "floor",
        "step / floor",
    ]
    rows = []
    for each in report.variants:
        floor, least = each.floor, each.floor.flops_seconds + each.floor.residual_seconds
        rows.append(
            [
                each.variant,
                f"{floor.flops / 1e9:.2f}",
                f"{1e3 * floor.flops_seconds:.1f} ms",
                f"{floor.residual_bytes / 2**20:.1f}",
                f"{1e3 * floor.residual_seconds:.1f} ms",
                f"{1e3 * floor.unfused_seconds:.1f} ms",
                f"{1e3 * least:.1f} ms",
                f"{each.quantiles.p50 / least:.1f}",
            ]
        )
    rates = report.rates
    title = (
        f"Floor, with matrices at {rates.matmul_flops_per_second / 1e9:.0f} GFLOP/s and copies at "
        f"{rates.copy_bytes_per_second / 2**30:.1f} GiB/s as measured here:"
    )
    return f"{title}\n{table(head, rows)}"


def _overhead(report: Overhead) -> str:
    ours, hand = 1e3 * report.ours_seconds, 1e3 * report.hand_seconds
    median, low, high = (
        f"{100 * (x - 1):+.1f}" for x in (report.ratio.median, report.ratio.low, report.ratio.high)
    )
    return (
        "Our training, logging and probes included, against a hand-written loop on the stock model:\n"
        f"{ours:.2f} against {hand:.2f} ms per step, {median} % (95 %: {low} to {high} %), "
        f"{report.chunks} chunks of {report.chunk_steps} steps, each in turn;\n"
        f"largest difference of their losses in the first steps {report.largest_loss_difference:.1g}."
    )


def _operators(report: BenchStepReport) -> str:
    costs = {
        variant: {operator.name: operator for operator in profile.operators}
        for variant, profile in report.profiles.items()
    }
    most = {
        name: max(found[name].seconds for found in costs.values() if name in found)
        for name in {name for found in costs.values() for name in found}
    }
    rows = []
    for name in sorted(most, key=lambda each: -most[each])[:OPERATORS]:
        cells = [found.get(name) for found in costs.values()]
        rows.append([name, *(f"{1e3 * o.seconds:.2f} ({o.calls:.0f})" if o else "-" for o in cells)])
    rows.append(["all operators", *(f"{1e3 * profile.seconds:.2f}" for profile in report.profiles.values())])
    return f"Operators, own ms per step (calls), under the profiler:\n{table(['operator', *costs], rows)}"

"""`mhc-bench bench step`: everything that is measured about a suite's training step, as data and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mhc_bench.bench.activations import KeptActivations, kept_activations
from mhc_bench.bench.floor import GOAL_LEVEL
from mhc_bench.bench.origin import Origin, origin_of
from mhc_bench.bench.overhead import Overhead, affordable_chunks, chunk_steps, measure_overhead
from mhc_bench.bench.profiling import StepProfile, profile_steps
from mhc_bench.bench.step import BATCHES, StepReport, measure_steps
from mhc_bench.bench.subject import bench_device, one_rank, subjects
from mhc_bench.bench.table import table
from mhc_bench.bench.traffic import LEVELS
from mhc_bench.config import RunConfig
from mhc_bench.processor import processor

SCHEMA = "mhc-bench/step/2"
OPERATORS = 12
"""Operators shown: those on which some variant spends most."""
PAPER_OVERHEAD = 0.067
"""mHC, n = 4, in the paper's own system (arXiv 2512.24880): of its pipelined step, not of one GPU's."""
GOAL = 1.3
"""The overhead that is aimed for on a GPU, over its floor."""


SETTLING_STEPS = 8
"""Of each variant before a profile: the first ones touch memory that the process has not had before."""


@dataclass(frozen=True)
class BenchStepReport:
    """Figures of one suite's step on this machine."""

    steps: StepReport
    activations: list[KeptActivations]
    overhead: Overhead
    profiles: dict[str, StepProfile]
    origin: Origin

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_text(self) -> str:
        """Tables for a terminal."""
        parts = (_steps, _floors, _activations, _overhead, _operators)
        return "\n\n".join(part(self) for part in parts)


def run_bench_step(
    configs: Sequence[RunConfig],
    steps: int = 40,
    *,
    warmup: int = 4,
    seconds: float | None = None,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> BenchStepReport:
    """Measure the step of every configuration of one suite and seed, and what our training adds to it.

    Args:
        steps: as for `measure_steps`.
        warmup: as for `measure_steps`.
        seconds: as for `measure_steps`.
        command: what was typed.
        say: told what is being measured.

    Raises:
        UsageError: the configurations do not belong together.
    """
    origin = origin_of(command, bench_device(configs[0]))
    say(f"steps of {len(configs)} variants in turn ...")
    measured = measure_steps(configs, steps, warmup, seconds)
    say("activations kept for the backward pass ...")
    kept = _kept(configs)
    pair = 2 * min(each.quantiles.p50 for each in measured.variants)
    chunks = affordable_chunks(configs[0], pair)
    seconds_left = (chunks + 1) * chunk_steps(configs[0]) * pair
    say(f"our training beside a hand-written loop, about {seconds_left:.0f} s ...")
    overhead = measure_overhead(configs[0], chunks)
    say("profiles ...")
    return BenchStepReport(measured, kept, overhead, _profiles(configs), origin)


def _kept(configs: Sequence[RunConfig]) -> list[KeptActivations]:
    with processor(configs[0].hardware.threads), one_rank(configs):
        return kept_activations(configs)


def _profiles(configs: Sequence[RunConfig]) -> dict[str, StepProfile]:
    with processor(configs[0].hardware.threads), one_rank(configs):
        made = subjects(configs, BATCHES)
        for _ in range(SETTLING_STEPS):
            for subject in made:
                subject.step()
        return {subject.name: profile_steps(subject.step, subject.device) for subject in made}


def _percent(ratio: float) -> str:
    return f"{100 * ratio:+.1f}"


def _steps(report: BenchStepReport) -> str:
    steps = report.steps
    head = ["variant", "ms/step", "p10", "p90", "overhead %", "95 %", "tokens/s", "MFU", "of peak"]
    rows = [
        [
            each.variant,
            f"{1e3 * each.quantiles.p50:.1f}",
            f"{1e3 * each.quantiles.p10:.1f}",
            f"{1e3 * each.quantiles.p90:.1f}",
            _percent(each.ratio.median - 1),
            f"{_percent(each.ratio.low - 1)} to {_percent(each.ratio.high - 1)}",
            f"{each.tokens_per_second:,.0f}",
            f"{100 * each.utilisation:.1f} %",
            f"{100 * each.peak_utilisation:.1f} %" if each.peak_utilisation else "-",
            f"{each.peak_step_bytes / 2**20:.1f}",
            f"{each.state_bytes / 2**20:.1f}",
        ]
        for each in steps.variants
    ]
    where = steps.gpu or f"{steps.threads} CPU thread{'s' if steps.threads > 1 else ''}"
    how = f"{steps.precision}, {'compiled' if steps.compile else 'eager'}"
    title = (
        f"Step of {steps.suite} ({steps.protocol_id}), {steps.tokens_per_step} tokens, {where}, {how},\n"
        f"{_operations(steps)},\n"
        f"{steps.variants[0].n} rounds in turn; overhead over {steps.baseline}, paired by round; MFU of the "
        "matmul rate measured here:"
    )
    return f"{title}\n{table([*head, 'step MiB', 'state MiB'], rows)}"


def _operations(steps: StepReport) -> str:
    """What was asked for, and by implementation the variants that computed with it."""
    by_name: dict[str, list[str]] = {}
    for each in steps.variants:
        by_name.setdefault(each.operations, []).append(each.variant)
    said = "; ".join(f"{name} for {', '.join(variants)}" for name, variants in by_name.items())
    return f"operations {steps.operations}: {said}"


def _floors(report: BenchStepReport) -> str:
    steps = report.steps
    head = ["variant", "GFLOP", "at matmul rate", "units", "streams MiB", *LEVELS, "measured %", "/ floor"]
    rows = []
    for each in steps.variants:
        floor, overhead = each.floor, each.ratio.median - 1
        moved, least = floor.traffic.get(GOAL_LEVEL), each.floor_overhead.get(GOAL_LEVEL, 0.0)
        rows.append(
            [
                each.variant,
                f"{floor.flops / 1e9:.2f}",
                f"{1e3 * floor.flops_seconds:.1f} ms",
                str(moved.units) if moved else "-",
                f"{moved.bytes / 2**20:.1f}" if moved else "-",
                *(_percent(each.floor_overhead[k]) if k in each.floor_overhead else "-" for k in LEVELS),
                _percent(overhead),
                f"{overhead / least:.1f}" if least else "-",
            ]
        )
    rates = steps.rates
    title = (
        f"Floor, as measured here: {rates.dtype} matrices at {rates.matmul_flops_per_second / 1e9:.0f} "
        f"GFLOP/s, copies at {rates.copy_bytes_per_second / 2**30:.1f} GiB/s.\n"
        f"Units of C and bytes: streams at level '{GOAL_LEVEL}'. By level of fusion: the overhead in % that "
        "the\nstreams' traffic alone would be. / floor: the measured overhead over that level's:"
    )
    return "\n".join([title, table(head, rows), *goal_lines(steps)])


def goal_lines(steps: StepReport) -> list[str]:
    """What the measured overheads of a GPU are held against."""
    if not steps.gpu:
        return ["The paper's 6.7 % for mHC is a GPU's; on a GPU it stands here, with the goal."]
    return [
        f"The paper reports {100 * PAPER_OVERHEAD:.1f} % for mHC (n = 4, own kernels and pipeline). Goal: "
        f"at most {GOAL} x the floor '{GOAL_LEVEL}', the baseline at 40 % of peak or more."
    ]


def _activations(report: BenchStepReport) -> str:
    head = [
        "variant",
        "recompute",
        "L_r",
        "path / C",
        "formula",
        "path B",
        "formula B",
        "sublayers B",
        "rest B",
    ]
    rows = [
        [
            each.variant,
            each.recompute,
            str(each.block),
            *(_or_reason(each, f"{each.path_units:.2f}"), f"{each.formula_units:.2f}"),
            *(_or_reason(each, f"{each.path_bytes:,.0f}"), f"{each.formula_bytes:,.0f}"),
            *(_or_reason(each, f"{each.sublayer_bytes:,.0f}"), _or_reason(each, f"{each.rest_bytes:,.0f}")),
        ]
        for each in report.activations
    ]
    title = (
        "Activations kept for the backward pass, eager layers: of the residual path in hidden states (C)\n"
        "per sublayer, and in bytes per token over all layers, beside the paper's table 3:"
    )
    return f"{title}\n{table(head, rows)}"


def _or_reason(each: KeptActivations, figure: str) -> str:
    return each.not_measured or figure


def _overhead(report: BenchStepReport) -> str:
    found = report.overhead
    median, low, high = (_percent(x - 1) for x in (found.ratio.median, found.ratio.low, found.ratio.high))
    return (
        "Our training, logging and probes included, against a hand-written loop on the stock model:\n"
        f"{1e3 * found.ours_seconds:.2f} against {1e3 * found.hand_seconds:.2f} ms per step, {median} % "
        f"(95 %: {low} to {high} %), {found.chunks} chunks of {found.chunk_steps} steps, each in turn;\n"
        f"largest difference of their losses in the first steps {found.largest_loss_difference:.1g}."
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

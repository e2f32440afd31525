"""Training steps of several variants of one suite, measured in turn in one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mhc_bench.bench.clock import Clock
from mhc_bench.bench.floor import StepFloor, step_floor
from mhc_bench.bench.profiling import peak_step_bytes
from mhc_bench.bench.rates import MachineRates, gpu_name, measure_rates
from mhc_bench.bench.subject import StepSubject, one_rank, subjects
from mhc_bench.bench.timing import Interval, Quantiles, interleave, median_interval, quantiles
from mhc_bench.config import RunConfig
from mhc_bench.processor import processor

BASELINE = "baseline"
BATCHES = 8
"""Different batches that the measured steps take in turn."""


@dataclass(frozen=True)
class VariantStep:
    """One variant's step: forward, loss, backward, clipping, AdamW."""

    variant: str
    quantiles: Quantiles
    """Seconds of a step."""
    tokens_per_second: float
    """At the median step."""
    ratio: Interval
    """Step time over the baseline's in the same round; less 1, the overhead."""
    peak_step_bytes: int
    """Most bytes allocated at once within a step, on top of weights and optimizer state."""
    state_bytes: int
    """Weights and optimizer state."""
    floor: StepFloor
    floor_overhead: dict[str, float]
    """By level of the I/O model: the seconds that the streams' traffic must take beyond the baseline's, over
    the baseline's measured step. What an overhead can be at best, arithmetic apart."""
    utilisation: float
    """Model FLOPs per second over the matmul rate measured here."""
    peak_utilisation: float | None
    """The same over the GPU's stated peak, the usual MFU; None where that is not known."""
    n: int
    operations: str
    """The implementation that its steps were computed with."""
    operations_reason: str
    """Why this one."""


@dataclass(frozen=True)
class StepReport:
    """All variants of one suite, in the order given."""

    suite: str
    protocol_id: str
    baseline: str
    """The variant that the ratios divide by."""
    threads: int
    device: str
    gpu: str
    """Name of the GPU; empty on a CPU."""
    precision: str
    compile: bool
    operations: str
    """As they were asked for; each variant says what that meant."""
    tokens_per_step: int
    rates: MachineRates
    variants: list[VariantStep]

    def step_time(self, variant: str) -> dict[str, Any]:
        """The figures of one variant as a record keeps them.

        Raises:
            KeyError: the variant was not measured.
        """
        by_name = {each.variant: each for each in self.variants}
        chosen, base = by_name[variant], by_name[self.baseline]
        return {
            "ratio_to_baseline": chosen.ratio.median,
            "baseline_tokens_per_second": base.tokens_per_second,
            "tokens_per_second": chosen.tokens_per_second,
            "quantiles": dataclasses.asdict(chosen.quantiles),
            "n": chosen.n,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def measure_steps(
    configs: Sequence[RunConfig], steps: int = 30, warmup: int = 3, seconds: float | None = None
) -> StepReport:
    """Time `steps` training steps of each configuration, in turn, in this process.

    Args:
        configs: runs of one protocol and seed that differ in the variant. Ratios are to the variant whose
            connection is `baseline`, or to the first.
        warmup: rounds that are not counted.
        seconds: stop measuring after about this time.

    Raises:
        UsageError: the configurations do not belong together.
    """
    with processor(configs[0].hardware.threads if configs else 1), one_rank(configs):
        measured = subjects(configs, BATCHES)
        device, bf16 = measured[0].device, configs[0].training.precision == "bf16"
        rates = measure_rates(device, torch.bfloat16 if bf16 else torch.float32)
        clock = Clock(device, cold=False)
        times = interleave([partial(clock, each.step) for each in measured], steps, warmup, seconds)
        return _report(configs, measured, times, rates)


def _report(
    configs: Sequence[RunConfig],
    measured: Sequence[StepSubject],
    times: npt.NDArray[np.float64],
    rates: MachineRates,
) -> StepReport:
    base, run, device = baseline_index(configs), configs[0], measured[0].device
    floors = [
        step_floor(
            each.module.model, run.training.batch_tokens, run.training.sequence_length, rates, each.itemsize
        )
        for each in measured
    ]
    return StepReport(
        suite=run.suite,
        protocol_id=run.protocol_id,
        baseline=measured[base].name,
        threads=torch.get_num_threads(),
        device=device.type,
        gpu=gpu_name(device),
        precision=run.training.precision,
        compile=run.hardware.compile,
        operations=run.hardware.operations,
        tokens_per_step=run.training.batch_tokens,
        rates=rates,
        variants=[
            _variant(subject, times[:, i], times[:, base], floors[i], floors[base], rates)
            for i, subject in enumerate(measured)
        ],
    )


def baseline_index(configs: Sequence[RunConfig]) -> int:
    """Which of `configs` the others are compared with."""
    connections = [config.variant.connection for config in configs]
    return connections.index(BASELINE) if BASELINE in connections else 0


def _variant(
    subject: StepSubject,
    times: npt.NDArray[np.float64],
    base: npt.NDArray[np.float64],
    floor: StepFloor,
    base_floor: StepFloor,
    rates: MachineRates,
) -> VariantStep:
    found, peak = quantiles(times), rates.peak_flops_per_second
    rate = floor.flops / found.p50
    return VariantStep(
        variant=subject.name,
        quantiles=found,
        tokens_per_second=subject.config.training.batch_tokens / found.p50,
        ratio=median_interval(times / base),
        peak_step_bytes=peak_step_bytes(subject.step, subject.device),
        state_bytes=_state_bytes(subject),
        floor=floor,
        floor_overhead=floor_overhead(floor, base_floor, float(np.median(base))),
        utilisation=rate / rates.matmul_flops_per_second,
        peak_utilisation=rate / peak if peak else None,
        n=len(times),
        operations=subject.choice.operations,
        operations_reason=subject.choice.reason,
    )


def floor_overhead(floor: StepFloor, base: StepFloor, seconds: float) -> dict[str, float]:
    """By level, what traffic beyond the `base`'s takes as a share of its step of `seconds`."""
    return {
        level: (moved.seconds - base.traffic[level].seconds) / seconds
        for level, moved in floor.traffic.items()
        if level in base.traffic
    }


def _state_bytes(subject: StepSubject) -> int:
    state = [t for each in subject.optimizer.state.values() for t in each.values() if torch.is_tensor(t)]
    return sum(t.numel() * t.element_size() for t in (*subject.module.model.parameters(), *state))

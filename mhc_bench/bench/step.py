"""Training steps of several variants of one suite, measured in turn in one process."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mhc_bench.bench.floor import StepFloor, step_floor
from mhc_bench.bench.profiling import peak_step_bytes
from mhc_bench.bench.rates import MachineRates, measure_rates
from mhc_bench.bench.subject import StepSubject, subjects
from mhc_bench.bench.timing import Interval, Quantiles, interleave, median_interval, quantiles
from mhc_bench.config import RunConfig

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
    """Step time over the baseline's in the same round."""
    peak_step_bytes: int
    """Most bytes allocated at once within a step, on top of weights and optimizer state."""
    state_bytes: int
    """Weights and optimizer state."""
    floor: StepFloor
    n: int


@dataclass(frozen=True)
class StepReport:
    """All variants of one suite, in the order given."""

    suite: str
    protocol_id: str
    baseline: str
    """The variant that the ratios divide by."""
    threads: int
    device: str
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
    with threads(configs[0].hardware.threads if configs else 1):
        measured = subjects(configs, BATCHES)
        rates = measure_rates(measured[0].device)
        times = interleave(
            [subject.step for subject in measured], steps, warmup, measured[0].synchronize, seconds
        )
        base = baseline_index(configs)
        return StepReport(
            suite=configs[0].suite,
            protocol_id=configs[0].protocol_id,
            baseline=measured[base].name,
            threads=torch.get_num_threads(),
            device=measured[0].device.type,
            tokens_per_step=configs[0].training.batch_tokens,
            rates=rates,
            variants=[
                _variant(subject, times[:, i], times[:, i] / times[:, base], rates)
                for i, subject in enumerate(measured)
            ],
        )


def baseline_index(configs: Sequence[RunConfig]) -> int:
    """Which of `configs` the others are compared with."""
    connections = [config.variant.connection for config in configs]
    return connections.index(BASELINE) if BASELINE in connections else 0


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _variant(subject: StepSubject, times: Any, ratios: Any, rates: MachineRates) -> VariantStep:
    training, found = subject.config.training, quantiles(times)
    return VariantStep(
        variant=subject.name,
        quantiles=found,
        tokens_per_second=training.batch_tokens / found.p50,
        ratio=median_interval(ratios),
        peak_step_bytes=peak_step_bytes(subject.step, subject.device),
        state_bytes=_state_bytes(subject),
        floor=step_floor(subject.module.model, training.batch_tokens, training.sequence_length, rates),
        n=len(times),
    )


def _state_bytes(subject: StepSubject) -> int:
    state = [t for each in subject.optimizer.state.values() for t in each.values() if torch.is_tensor(t)]
    return sum(t.numel() * t.element_size() for t in (*subject.module.model.parameters(), *state))

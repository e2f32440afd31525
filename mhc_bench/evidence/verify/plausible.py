"""Checks against what can be: sizes recounted, speeds below the peak, results near the baseline's."""

from __future__ import annotations

from collections.abc import Iterator

from mhc_bench.evidence.gpus import most_flops
from mhc_bench.evidence.parts import Hardware
from mhc_bench.evidence.quantities import is_fraction
from mhc_bench.evidence.record import Record
from mhc_bench.evidence.verify.checks import (
    Entry,
    Finding,
    Remark,
    Tools,
    UnavailableError,
    named,
    protocol_check,
    record_check,
)
from mhc_bench.evidence.verify.configuration import BASELINE, section

CPU_PEAK = {"fp32": 320e9, "bf16": 10.24e12}
"""FLOP/s of one thread at most: 5 GHz, two 512-bit units (64 a cycle); in bf16 an AMX tile unit (2048)."""
FASTEST_GPU = 5e15
"""For a device that is not listed: beyond any that is sold."""
LOWEST_LOSS = 0.6
"""Of the baseline's best validation loss. In the published tables the best variant reached 0.75 of it."""
HIGHEST_JUMP = 0.6
"""Above the baseline's best score, as a fraction. In the published tables the best variant jumped by 0.31."""
LOWEST_START = 0.8
"""Of the baseline's loss before any update: an untrained model knows nothing."""


@record_check(
    "parameters", "parameters and FLOPs are those of this model with this connection, counted again"
)
def parameters(entry: Entry, tools: Tools) -> Iterator[Finding | Remark]:
    training = entry.record.training
    if training is None:
        return
    if tools.count is None:
        yield entry.note("not recounted: no model can be built here")
        return
    try:
        counted = tools.count(entry.record.configuration, training.flops_rule)
    except UnavailableError as error:
        yield entry.note(f"not recounted: {error}")
        return
    except ValueError as error:
        yield entry.problem(
            f"a model that cannot be built: {error}", "one that this suite could have trained"
        )
        return
    said = {**training.parameters.model_dump(), "flops_per_token": training.flops_per_token}
    for name, number in counted.items():
        if said[name] != number:
            yield entry.problem(f"{name} {said[name]}", f"{number}, counted on the meta device")


@record_check("timing", "no step was faster than the hardware can compute")
def timing(entry: Entry, tools: Tools) -> Iterator[Finding | Remark]:
    training = entry.record.training
    batch = section(entry.record.configuration, "training", "batch_tokens")
    if training is None or training.step_seconds is None or not isinstance(batch, int):
        return
    precision = section(entry.record.configuration, "training", "precision")
    peak, known = peak_flops(entry.record.provenance.hardware, str(precision))
    if not known:
        yield entry.note(f"unknown GPU {entry.record.provenance.hardware.gpus[0]}: a general bound was used")
    times = [training.step_seconds.p10]
    if entry.record.cost.step_time:
        times.append(entry.record.cost.step_time.quantiles.p10)
    for seconds in times:
        if seconds * peak < training.flops_per_token * batch:
            rate = f"{training.flops_per_token * batch / seconds:.3g}" if seconds > 0 else "infinitely many"
            yield entry.problem(f"{rate} FLOP/s in a step of {seconds} s", f"at most {peak:.3g} FLOP/s")


def peak_flops(hardware: Hardware, precision: str) -> tuple[float, bool]:
    """FLOP/s that this hardware cannot exceed, and whether the device is a known one."""
    if not hardware.gpus:
        lanes = max(1, hardware.threads) * max(1, hardware.processes)
        return CPU_PEAK.get(precision, CPU_PEAK["bf16"]) * lanes, True
    peaks = [most_flops(name) for name in hardware.gpus]
    # names may be given once for several processes of the same kind
    total = sum(peak or FASTEST_GPU for peak in peaks) * max(1, -(-hardware.processes // len(peaks)))
    return total, None not in peaks


@protocol_check("too good", "no result is so far beyond the baseline's seeds that an error is likelier")
def too_good(group: tuple[Entry, ...]) -> Iterator[Finding | Remark]:
    base = [entry.record for entry in group if entry.record.identity.variant == BASELINE]
    best = min((loss for record in base if (loss := record.validation_loss) is not None), default=None)
    if best is None:
        yield group[0].note("no baseline here to compare with")
        return
    starts = {record.identity.seed: _start(record) for record in base}
    for entry in group:
        loss, start = entry.record.validation_loss, _start(entry.record)
        if loss is not None and loss < LOWEST_LOSS * best:
            yield entry.problem(
                f"validation loss {loss}", f"at least {LOWEST_LOSS} of the baseline's best, {best}"
            )
        beside = starts.get(entry.record.identity.seed)
        if start is not None and beside is not None and start < LOWEST_START * beside:
            yield entry.problem(
                f"loss {start} before any update", f"at least {LOWEST_START} of the baseline's, {beside}"
            )
        yield from _scores(entry, base)


def _start(record: Record) -> float | None:
    return record.training.initial_loss if record.training else None


def _scores(entry: Entry, base: list[Record]) -> Iterator[Finding]:
    for name, task in entry.record.evaluation.tasks.items() if entry.record.evaluation else ():
        if not is_fraction(task) or task.value is None or not task.higher_is_better:
            continue
        known = [
            each.evaluation.tasks[name].value
            for each in base
            if each.evaluation and name in each.evaluation.tasks
        ]
        best = max((value for value in known if value is not None), default=None)
        if best is not None and task.value > best + HIGHEST_JUMP:
            yield entry.problem(
                f"{name} {task.value} of {named(entry)}",
                f"at most {HIGHEST_JUMP} above the baseline's best, {best}",
            )

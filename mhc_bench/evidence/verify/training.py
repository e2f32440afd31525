"""Checks of the training summary against itself, its curves and its configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mhc_bench.evidence.record import GRADIENT_NORM, LOSS, Curve, Training, ValidationPoint
from mhc_bench.evidence.verify.checks import Entry, Finding, Remark, Tools, protocol_check, record_check
from mhc_bench.evidence.verify.configuration import section

EXACT = 1e-9
"""Relative: what computing in another order leaves of equal numbers."""
WRITTEN = 1e-6
"""Relative: curves come from a table with eight digits."""
FINAL_SHARE = 0.05
SLACK = 1.1
"""Quantiles of step times are interpolated, so a bound on their sum is not sharp."""


def near(left: float, right: float, relative: float = EXACT) -> bool:
    """Whether two numbers are equal but for rounding."""
    return math.isclose(left, right, rel_tol=relative, abs_tol=relative)


@record_check("outcome", "a complete run has answered every task that its suite has")
def outcome(entry: Entry, tools: Tools) -> Iterator[Finding]:
    asked, record = section(entry.record.configuration, "evaluation", "tasks"), entry.record
    if record.status == "complete" and asked and record.evaluation is None:
        yield entry.problem("complete without an evaluation", f"the tasks {asked}, or a partial run")


@record_check("training summary", "steps, tokens, status, times and speeds follow from each other")
def summary(entry: Entry, tools: Tools) -> Iterator[Finding]:
    training = entry.record.training
    if training is None:
        return
    batch, asked = (section(entry.record.configuration, "training", key) for key in ("batch_tokens", "steps"))
    if isinstance(batch, int) and training.tokens != training.steps * batch:
        yield entry.problem(f"tokens {training.tokens}", f"{training.steps} steps x {batch}")
    if isinstance(asked, int):
        yield from _length(entry, training, asked)
    yield from _times(entry, training, batch)


def _length(entry: Entry, training: Training, asked: int) -> Iterator[Finding]:
    status, last = entry.record.status, training.diverged_step
    if status == "complete" and (training.steps != asked or last is not None):
        yield entry.problem(
            f"complete after {training.steps} steps, diverged at {last}", f"{asked} steps, null"
        )
    if training.steps > asked:
        yield entry.problem(f"{training.steps} steps", f"at most {asked}")
    if (last is not None) != (training.nonfinite_steps > 0) or (last is not None and status == "complete"):
        yield entry.problem(
            f"{training.nonfinite_steps} non-finite steps, diverged at {last}, {status}", "three that agree"
        )
    if last is not None and last < training.steps:
        yield entry.problem(
            f"diverged at step {last} after {training.steps} steps", "the step after the last"
        )


def _times(entry: Entry, training: Training, batch: object) -> Iterator[Finding]:
    times = training.step_seconds
    if times is None:
        return
    if not 0 < times.p10 <= times.p50 <= times.p90:
        yield entry.problem(f"step times {times.p10}, {times.p50}, {times.p90}", "positive, in rising order")
        return
    if isinstance(batch, int) and training.tokens_per_second is not None:
        speed = batch / times.p50
        if not near(training.tokens_per_second, speed):
            yield entry.problem(
                f"{training.tokens_per_second} tokens/s", f"{speed}: a batch over the median step"
            )
    timed = _timed_steps(entry, training)
    least = 0.9 * timed * times.p10 / SLACK
    if timed <= 0:
        yield entry.problem(f"step times after {training.steps} steps", f"null: {timed} on the last hardware")
    if training.seconds < least:
        yield entry.problem(f"trained {training.seconds} s", f"at least {least:.6g} s, from its step times")


def _timed_steps(entry: Entry, training: Training) -> int:
    """How many steps the step times are of: those since the last change of hardware."""
    changes = entry.record.provenance.hardware_changes
    return training.steps - (changes[-1].after_step if changes else 0)


@record_check("loss curve", "the sampled curve is regular, ends with the run, and gives the summary's losses")
def loss_curve(entry: Entry, tools: Tools) -> Iterator[Finding]:
    training, curve = entry.record.training, entry.record.curve(LOSS)
    if training is None:
        return
    if curve is None or not curve.steps:
        if training.steps:
            yield entry.problem("no loss curve", "one that ends with the last step")
        return
    if curve.steps[-1] != training.steps:
        yield entry.problem(f"the loss curve ends at step {curve.steps[-1]}", training.steps)
    width = curve.steps[0]
    gaps = {late - early for early, late in zip(curve.steps, curve.steps[1:-1], strict=False)}
    if gaps - {width}:
        yield entry.problem(f"points {sorted(gaps)[:5]} steps apart", f"{width} steps, as the first")
        return
    values = [value for value in curve.values if value is not None]
    if len(values) == len(curve.values):
        yield from _start(entry, training, curve.steps, values)
        yield from _end(entry, training, curve.steps, values)


def _start(
    entry: Entry, training: Training, steps: Sequence[int], values: Sequence[float]
) -> Iterator[Finding]:
    """Each point is the mean of the steps up to it, and no loss is negative: that bounds the first step's."""
    first, most = training.initial_loss, values[0] * steps[0]
    exact = steps[0] == 1
    if first is None or first < 0 or first > most * (1 + EXACT) or (exact and not near(first, most)):
        bound = f"{most}" if exact else f"0 to {most:.6g}"
        yield entry.problem(f"initial loss {first}", f"{bound}, from the curve's first point")


def _end(
    entry: Entry, training: Training, steps: Sequence[int], values: Sequence[float]
) -> Iterator[Finding]:
    count = max(1, round(training.steps * FINAL_SHARE))
    if training.final_steps is not None and training.final_steps != count:
        yield entry.problem(f"final_steps {training.final_steps}", count)
    low, high = tail_bounds(steps, values, count)
    final = training.final_loss
    if final is None or not low * (1 - EXACT) <= final <= high * (1 + EXACT):
        yield entry.problem(
            f"final loss {final}", f"{low:.9g} to {high:.9g}, from the curve's last {count} steps"
        )
    low, high = tail_bounds(steps, values, 1)
    last = training.last_loss
    if last is not None and not low * (1 - EXACT) <= last <= high * (1 + EXACT):
        yield entry.problem(f"last loss {last}", f"{low:.9g} to {high:.9g}, from the curve's last point")


def tail_bounds(steps: Sequence[int], values: Sequence[float], count: int) -> tuple[float, float]:
    """What the mean of the last `count` losses can be, given means of stretches and losses of 0 or more.

    Stretches inside the tail count whole; of the one that reaches into it nothing may, or all.
    """
    start, low, high = steps[-1] - count, 0.0, 0.0
    for begin, end, value in zip([0, *steps[:-1]], steps, values, strict=True):
        low += value * (end - begin) if begin >= start else 0
        high += value * (end - begin) if end > start else 0
    return low / count, high / count


@record_check("validation", "losses, perplexities, steps and tokens of all validations agree")
def validation(entry: Entry, tools: Tools) -> Iterator[Finding]:
    training = entry.record.training
    if training is None:
        return
    batch = section(entry.record.configuration, "training", "batch_tokens")
    steps = [point.step for point in training.validation]
    if steps != sorted(set(steps)) or (steps and steps[-1] > training.steps):
        yield entry.problem(f"validations at steps {steps[:9]}", f"rising steps up to {training.steps}")
    for point in training.validation:
        if isinstance(batch, int) and point.tokens != point.step * batch:
            yield entry.problem(f"{point.tokens} tokens at step {point.step}", point.step * batch)
        if point.loss is not None and not _agrees(point):
            yield entry.problem(f"perplexity {point.perplexity} at loss {point.loss}", "exp(loss)")


def _agrees(point: ValidationPoint) -> bool:
    if point.loss is None or point.loss < 0:
        return False
    if point.loss > 700:  # exp of it has no double
        return point.perplexity is None
    return point.perplexity is None or near(point.perplexity, math.exp(point.loss), WRITTEN)


@protocol_check("bits per byte", "bits per byte are the loss times one factor, the same for a whole protocol")
def bits_per_byte(group: tuple[Entry, ...]) -> Iterator[Finding]:
    factor = None
    for entry in group:
        for point in entry.record.training.validation if entry.record.training else ():
            if point.loss is None or point.bits_per_byte is None or not point.loss > 0:
                continue
            ratio = point.bits_per_byte / point.loss
            factor = ratio if factor is None else factor
            if not near(ratio, factor, WRITTEN):
                yield entry.problem(
                    f"{point.bits_per_byte} bits/byte at {point.loss}", f"loss x {factor:.9g}"
                )


@record_check("mechanism", "peaks and ends of probes and gradient norms are those of their curves")
def mechanism(entry: Entry, tools: Tools) -> Iterator[Finding]:
    found, training = entry.record.mechanism, entry.record.training
    if found is None or training is None:
        return
    for name, curve in found.curves.items():
        if curve.steps and curve.steps[-1] > training.steps:
            yield entry.problem(f"{name} at step {curve.steps[-1]}", f"at most {training.steps}")
        if name in found.probes:
            probe = found.probes[name]
            yield from _extremes(entry, name, curve, probe.max, probe.min)
            if (
                (last := _last(curve)) is not None
                and probe.final is not None
                and not near(probe.final, last, WRITTEN)
            ):
                yield entry.problem(f"{name} ends at {probe.final}", f"{last}, as its curve")
    norms = found.curves.get(GRADIENT_NORM)
    if norms is not None and training.gradient_norm is not None:
        yield from _extremes(entry, GRADIENT_NORM, norms, training.gradient_norm.max, None)


def _last(curve: Curve) -> float | None:
    return curve.values[-1] if curve.values else None


def _extremes(
    entry: Entry, name: str, curve: Curve, largest: float | None, smallest: float | None
) -> Iterator[Finding]:
    """A thinned curve stays between the extremes; one with every point reaches them (see `record.CURVES`)."""
    values = [value for value in curve.values if value is not None]
    if not values:
        return
    if largest is not None and max(values) > largest + WRITTEN * abs(largest):
        yield entry.problem(f"{name} reaches {max(values)}", f"at most its largest value, {largest}")
    if smallest is not None and min(values) < smallest - WRITTEN * abs(smallest):
        yield entry.problem(f"{name} falls to {min(values)}", f"at least its smallest value, {smallest}")


@record_check("cost", "times under cost are those of training, evaluation and the measured step")
def cost(entry: Entry, tools: Tools) -> Iterator[Finding | Remark]:
    said, record = entry.record.cost, entry.record
    for name, ours, theirs in (
        ("train_seconds", said.train_seconds, record.training.seconds if record.training else None),
        ("evaluate_seconds", said.evaluate_seconds, record.evaluation.seconds if record.evaluation else None),
    ):
        if ours != theirs:
            yield entry.problem(f"cost.{name} {ours}", theirs)
    step = said.step_time
    if step is None:
        return
    if not 0 < step.quantiles.p10 <= step.quantiles.p50 <= step.quantiles.p90:
        yield entry.problem(f"measured step times {step.quantiles}", "positive, in rising order")
    if record.identity.variant == "baseline" and step.ratio_to_baseline != 1:
        yield entry.problem(f"the baseline takes {step.ratio_to_baseline} of its own time", 1)
    if step.n == 0 or step.ratio_to_baseline <= 0 or step.baseline_tokens_per_second <= 0:
        yield entry.problem("a step time that was not measured", "positive numbers, or null")

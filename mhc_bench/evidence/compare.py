"""Two records of the same run, one made again: what differs, and whether it lies where the seeds lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mhc_bench.evidence.parts import Numerics, Provenance
from mhc_bench.evidence.record import Curve, Record
from mhc_bench.evidence.reproduction import Difference, Verdict
from mhc_bench.evidence.statistics import prediction_interval, spread

FEWEST_SEEDS = 3
"""Below this many seeds nothing is said about where another run would lie."""
Value = str | float | None


def compare_environment(
    recorded: Record, provenance: Provenance, numerics: Numerics | None
) -> tuple[Difference, ...]:
    """What is different here from where the record was made."""
    then = {**_environment(recorded.provenance), **_numerics(recorded.numerics)}
    return _differing(then, {**_environment(provenance), **_numerics(numerics)})


def _environment(told: Provenance) -> dict[str, Value]:
    packages = {f"package {name}": version for name, version in told.packages.items()}
    hardware = {
        "processor": told.hardware.cpu,
        "GPUs": ", ".join(told.hardware.gpus) or "none",
        "threads": str(told.hardware.threads),
        "processes": str(told.hardware.processes),
    }
    code = {"mhc-bench": told.version, "commit": told.commit, "uncommitted changes": _text(told.dirty)}
    return {
        **code,
        "python": told.python,
        "platform": told.platform,
        **packages,
        "lock hash": told.lock_hash,
        **hardware,
    }


def _numerics(told: Numerics | None) -> dict[str, Value]:
    return {name: _text(value) for name, value in told.model_dump().items()} if told else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def compare_results(recorded: Record, again: Record) -> tuple[Difference, ...]:
    """Results that are not the same to the last bit. What the record does not say is not compared."""
    found = _differing(dict(_results(recorded)), dict(_results(again)))
    return (*found, *_curves(recorded, again))


def _differing(then: Mapping[str, Value], now: Mapping[str, Value]) -> tuple[Difference, ...]:
    return tuple(
        Difference(what=name, recorded=str(value), here=str(now.get(name)))
        for name, value in then.items()
        if value is not None and value != now.get(name)
    )


def _results(record: Record) -> Iterator[tuple[str, Value]]:
    yield "status", record.status
    for name, text in record.data.items():
        yield f"data {name}", text
    if record.digests:
        yield "shared weights at step 0", record.digests.shared_weights
        yield "token stream", record.digests.token_stream
        yield "final weights", record.digests.weights
    if training := record.training:
        yield from training.parameters.model_dump().items()
        losses = ("steps", "initial_loss", "last_loss", "final_loss", "spikes", "diverged_step")
        yield from ((name, getattr(training, name)) for name in losses)
        for point in training.validation:
            yield f"validation loss at step {point.step}", point.loss
    for name, probe in record.mechanism.probes.items() if record.mechanism else ():
        yield from ((f"{name} {which}", value) for which, value in probe.model_dump().items())
    yield from _scores(record)


def _scores(record: Record) -> Iterator[tuple[str, Value]]:
    for name, task in record.evaluation.tasks.items() if record.evaluation else ():
        yield f"{name} requests", task.request_hash
        yield f"{name} {task.metric}", task.value
        yield f"{name} gold log-likelihood", task.gold_loglikelihood
    if record.evaluation:
        yield "outcomes of all items", record.evaluation.items


def _curves(recorded: Record, again: Record) -> Iterator[Difference]:
    for name, curve in recorded.mechanism.curves.items() if recorded.mechanism else ():
        other = again.curve(name) or Curve(steps=(), values=())
        if curve != other:
            yield Difference(what=f"curve of {name}", recorded=_digest(curve), here=_distance(curve, other))


def _digest(curve: Curve) -> str:
    return f"{len(curve.steps)} points"


def _distance(curve: Curve, other: Curve) -> str:
    if curve.steps != other.steps:
        return f"{len(other.steps)} points at other steps"
    gaps = [
        abs(left - right)
        for left, right in zip(curve.values, other.values, strict=True)
        if left is not None and right is not None and left != right
    ]
    return f"{len(gaps)} points differ, by at most {max(gaps, default=0.0):.3g}"


def seed_interval(records: Sequence[Record]) -> tuple[float, float] | None:
    """Where one more run's validation loss lies, at 95 %, by a variant's seeds; None for too few of them."""
    losses = {
        record.identity.seed: loss for record in records if (loss := record.validation_loss) is not None
    }
    return prediction_interval(spread(losses)) if len(losses) >= FEWEST_SEEDS else None


def judge(
    recorded: Record, again: Record, differences: Sequence[Difference], interval: tuple[float, float] | None
) -> Verdict:
    """What the repetition says."""
    if not differences:
        return "identical bits"
    if recorded.status != again.status:
        return "outside interval"
    loss = again.validation_loss
    if interval is None or loss is None:
        return "no interval"
    return "inside interval" if interval[0] <= loss <= interval[1] else "outside interval"

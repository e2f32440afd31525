"""The quantities that the tables show: how each is read from a record, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mhc_bench.evidence.record import GAIN_BACKWARD, GAIN_FORWARD, Record, Task


@dataclass(frozen=True)
class Quantity:
    """A number that a record has or has not."""

    key: str
    """Its name in the CSV and JSON files."""
    title: str
    unit: str
    of: Callable[[Record], float | None]
    higher_is_better: bool | None = None
    """None: neither direction is better, so no verdict is given."""
    scale: float = 1
    """Tables print value times scale, in `shown_unit`."""
    shown_unit: str = ""
    decimals: int = 4
    family: str = ""
    """The tasks' measures that are looked at together, and so corrected together; empty for one alone."""


CENTRED = "score_centred"
"""Key of the chance-centred mean."""
SCORES, GOLD = "score", "gold_loglikelihood"
"""The two families: the tasks' scores, and their gold answers' log-likelihoods."""


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    numbers = [value for value in known if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers and len(numbers) == len(known) else None


def _task(record: Record, name: str) -> Task | None:
    return record.evaluation.tasks.get(name) if record.evaluation else None


def task_score(record: Record, name: str) -> float | None:
    """A task's score in the metric's own unit."""
    task = _task(record, name)
    return task.value if task else None


def task_gold(record: Record, name: str) -> float | None:
    """The mean log-likelihood of a task's gold answers, in nats."""
    task = _task(record, name)
    return task.gold_loglikelihood if task else None


def task_stderr(record: Record, name: str) -> float | None:
    """A task's standard error over items."""
    task = _task(record, name)
    return task.stderr if task else None


def mean_score(record: Record, names: tuple[str, ...]) -> float | None:
    """The mean score over tasks; None unless the record has all of them."""
    return _mean(task_score(record, name) for name in names)


def mean_gold(record: Record, names: tuple[str, ...]) -> float | None:
    """The mean over tasks of the gold answers' log-likelihood; None unless the record has all of them."""
    return _mean(task_gold(record, name) for name in names)


VALIDATION_LOSS = Quantity(
    "validation_loss", "Validation loss", "nats/token", lambda record: record.validation_loss, False
)
BITS_PER_BYTE = Quantity(
    "bits_per_byte", "Validation loss", "bits/byte", lambda record: record.bits_per_byte, False
)


def gold_quantity(tasks: tuple[str, ...]) -> Quantity:
    """The gold answers' log-likelihood, mean over `tasks`."""
    title = f"Gold answers' log-likelihood, mean over {len(tasks)} tasks"
    return Quantity("gold_loglikelihood", title, "nats", partial(mean_gold, names=tasks), True, decimals=3)


def score_quantity(tasks: tuple[str, ...]) -> Quantity:
    """The mean score over `tasks`, as a fraction."""
    of = partial(mean_score, names=tasks)
    return Quantity("score", f"Mean of {len(tasks)} tasks", "fraction", of, True, 100, "%", 1)


def centred_score(record: Record, names: tuple[str, ...]) -> float | None:
    """The mean over tasks of (score - chance) / (1 - chance): 0 for guessing, 1 for no error."""
    return _mean(_centred(_task(record, name)) for name in names)


def _centred(task: Task | None) -> float | None:
    if task is None or task.value is None or task.chance is None or task.chance >= 1:
        return None
    return (task.value - task.chance) / (1 - task.chance)


def centred_quantity(tasks: tuple[str, ...]) -> Quantity:
    """The chance-centred mean score over `tasks`, as a fraction."""
    of = partial(centred_score, names=tasks)
    title = f"Chance-centred mean of {len(tasks)} tasks"
    return Quantity(CENTRED, title, "fraction", of, True, 100, "%", 1)


def task_quantities(tasks: Mapping[str, Task], family: str) -> list[Quantity]:
    """The measures of one family: one for each task."""
    if family == GOLD:
        return [task_gold_quantity(name) for name in tasks]
    return [task_quantity(name, task) for name, task in tasks.items()]


def task_quantity(name: str, task: Task) -> Quantity:
    """One task's score: printed in per cent where it is a fraction."""
    of = partial(task_score, name=name)
    if not is_fraction(task):
        return Quantity(
            f"score/{name}", name, task.metric, of, task.higher_is_better, decimals=3, family=SCORES
        )
    return Quantity(f"score/{name}", name, "fraction", of, task.higher_is_better, 100, "%", 1, SCORES)


def task_gold_quantity(name: str) -> Quantity:
    """One task's gold answers' log-likelihood."""
    of = partial(task_gold, name=name)
    return Quantity(f"gold_loglikelihood/{name}", name, "nats", of, True, decimals=3, family=GOLD)


def is_fraction(task: Task) -> bool:
    """Whether the task's score lies between 0 and 1 by its metric, so that tasks can be averaged."""
    return task.metric.split(",")[0] in {"acc", "acc_norm", "exact_match", "f1", "em", "math_verify"}


def _probe_max(record: Record, name: str) -> float | None:
    probe = record.probe(name)
    return probe.max if probe else None


def _probe_final(record: Record, name: str) -> float | None:
    probe = record.probe(name)
    return probe.final if probe else None


def _gradient_norm(record: Record, which: Literal["mean", "max"]) -> float | None:
    norm = record.training.gradient_norm if record.training else None
    return getattr(norm, which) if norm else None


def _gain_peak(record: Record) -> float | None:
    peaks = [_probe_max(record, name) for name in (GAIN_FORWARD, GAIN_BACKWARD)]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if len(known) == len(peaks) else None


GAIN_PEAK = Quantity("gain_peak", "Peak composite gain", "", _gain_peak)
STABILITY = (
    Quantity("gain_forward_peak", "Forward gain, peak", "", partial(_probe_max, name=GAIN_FORWARD)),
    Quantity("gain_forward_final", "Forward gain, final", "", partial(_probe_final, name=GAIN_FORWARD)),
    Quantity("gain_backward_peak", "Backward gain, peak", "", partial(_probe_max, name=GAIN_BACKWARD)),
    Quantity("gain_backward_final", "Backward gain, final", "", partial(_probe_final, name=GAIN_BACKWARD)),
    Quantity(
        "gradient_norm_mean",
        "Gradient norm, mean",
        "",
        partial(_gradient_norm, which="mean"),
    ),
    Quantity(
        "gradient_norm_max",
        "Gradient norm, max",
        "",
        partial(_gradient_norm, which="max"),
    ),
    Quantity("spikes", "Loss spikes", "", lambda record: record.training.spikes if record.training else None),
)

PARAMETERS = Quantity(
    "parameters",
    "Parameters",
    "",
    lambda record: record.training.parameters.total if record.training else None,
    decimals=0,
)
ADDED_PARAMETERS = Quantity(
    "parameters_residual",
    "Residual parameters",
    "",
    lambda record: record.training.parameters.residual if record.training else None,
    decimals=0,
)
STEP_TIME_RATIO = Quantity(
    "step_time_ratio",
    "Step time / baseline's",
    "",
    lambda record: record.cost.step_time.ratio_to_baseline if record.cost.step_time else None,
    decimals=2,
)
PEAK_MEMORY = Quantity(
    "peak_memory",
    "Peak memory",
    "bytes",
    lambda record: record.training.peak_memory_bytes if record.training else None,
    scale=2**-20,
    shown_unit="MiB",
    decimals=0,
)
TOKENS_PER_SECOND = Quantity(
    "interleaved_tokens_per_second",
    "Speed",
    "tokens/s",
    lambda record: record.cost.step_time.tokens_per_second if record.cost.step_time else None,
    decimals=0,
)
TRAIN_SECONDS = Quantity(
    "train_seconds", "Training time", "s", lambda record: record.cost.train_seconds, decimals=0
)
EVALUATE_SECONDS = Quantity(
    "evaluate_seconds", "Evaluation time", "s", lambda record: record.cost.evaluate_seconds, decimals=0
)
COST = (
    PARAMETERS,
    ADDED_PARAMETERS,
    STEP_TIME_RATIO,
    TOKENS_PER_SECOND,
    PEAK_MEMORY,
    TRAIN_SECONDS,
    EVALUATE_SECONDS,
)
"""All but the parameter counts compare only within one cost id."""

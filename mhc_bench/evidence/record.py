"""The record: what one run proves, as plain data. Strict, frozen, finite numbers only.

Fields that came with schema version 2 have a default, for records of version 1 (see `versions.py`).
"""

from __future__ import annotations

import hashlib
import json
import operator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from mhc_bench.evidence.depth import Depth
from mhc_bench.evidence.parts import (
    Count,
    FilePath,
    Hex,
    Identity,
    Json,
    Name,
    Numerics,
    Part,
    Provenance,
    Quantity,
    Sha256,
    Started,
    Tuning,
)

SCHEMA_VERSION = 2

LOSS = "loss"
GRADIENT_NORM = "gradient_norm"
GAIN_FORWARD = "composite_forward_gain"
GAIN_BACKWARD = "composite_backward_gain"
CURVES = (LOSS, GRADIENT_NORM, GAIN_FORWARD, GAIN_BACKWARD)
"""The sampled curves from which the figures are drawn. Loss in nats per token; gains are ratios."""

Status = Literal["complete", "diverged", "failed", "partial"]
RESULTS = ("complete", "diverged")
"""What a run can come to. A failed one broke while training; a partial one trained and was not evaluated."""


class Digests(Part):
    """Proofs that two runs are a pair: SHA-256, hexadecimal."""

    later = frozenset({"start"})
    shared_weights: Hex
    """All parameters but the residual connection's, at step 0; of an A/A run, before its perturbation."""
    token_stream: Hex
    """All training rows in the order in which they were seen."""
    weights: Hex | None
    """All parameters after training; null where nothing finite remained."""
    start: Hex | None = None
    """Of an A/A run: all parameters at step 0, after the perturbation; null for any other run."""


class Parameters(Part):
    """Parameter counts; `residual` is what the variant adds."""

    total: Count
    active: Count
    vocabulary: Count
    residual: Count


class ValidationPoint(Part):
    """Validation at one step. Loss in nats per token; null where it was not finite."""

    step: Count
    tokens: Count
    loss: float | None
    perplexity: float | None
    bits_per_byte: float | None


class GradientNorm(Part):
    """Global gradient norm before clipping, over all steps."""

    mean: float | None
    max: float | None
    p99: float | None


class Quantiles(Part):
    """Seconds of one training step."""

    p10: float
    p50: float
    p90: float


class Training(Part):
    """What training left behind. Losses in nats per token, times in seconds."""

    later = frozenset({"flops_rule"})
    steps: Count
    tokens: Count
    parameters: Parameters
    flops_per_token: Count
    flops_rule: Literal[1, 2] = 1
    """1: every matrix counts once per token, also where it meets each stream; 2: once for each vector."""
    initial_loss: float | None
    final_loss: float | None
    """Mean training loss of the last twentieth of the steps."""
    final_steps: Count | None = None
    """How many steps that mean is over."""
    last_loss: float | None = None
    """Training loss of the last step alone."""
    validation: tuple[ValidationPoint, ...]
    gradient_norm: GradientNorm | None
    """Null for a run that took no step; likewise `step_seconds`."""
    spikes: Count
    nonfinite_steps: Count
    restarts: Count
    step_seconds: Quantiles | None
    tokens_per_second: float | None
    """As the run went, whatever else the machine did at the time."""
    peak_memory_bytes: Count | None
    seconds: float
    diverged_step: Count | None


class Subtask(Part):
    """The items of one kind within a task."""

    value: float | None
    n: Count
    gold_loglikelihood: float | None
    chance: float | None
    prior: float | None


class Task(Part):
    """One downstream task. `value`, `chance` and `prior` are in the metric's own unit: fractions, mostly."""

    value: float | None
    metric: str
    stderr: float | None
    """Standard error over the items (documents) of this run."""
    n: Count
    shots: Count
    version: str
    chance: float | None
    prior: float | None
    """What always giving the most frequent training answer would score."""
    request_hash: str | None
    gold_loglikelihood: float | None
    """Mean over items of the gold answer's log-likelihood, in nats."""
    higher_is_better: bool = True
    subtasks: dict[Name, Subtask] = Field(default_factory=dict)
    revision: str | None = None
    """Commit of the data set, where the hub's cache tells it."""


class Evaluation(Part):
    """Downstream results."""

    tasks: dict[Name, Task]
    seconds: float
    dtype: str | None = None
    """Computed in: `fp32` or `bf16`."""
    batch_size: Count | None = None
    items: Sha256 | None = None
    """Of the uncompressed outcomes of every item; the compressed file stands among the side files."""


class Curve(Part):
    """A quantity sampled over training; null where it was not finite."""

    steps: tuple[Count, ...]
    values: tuple[float | None, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.steps) != len(self.values):
            raise ValueError(f"{len(self.steps)} steps for {len(self.values)} values")
        if not all(map(operator.lt, self.steps, self.steps[1:])):
            raise ValueError("steps must increase")
        return self


class Probe(Part):
    """One probe over training; null where it was not finite."""

    final: float | None
    max: float | None
    min: float | None


class Mechanism(Part):
    """The health of the residual connection: summaries of all probes, curves of those that are drawn."""

    later = frozenset({"depth"})
    probes: dict[Quantity, Probe]
    curves: dict[Quantity, Curve]
    depth: Depth | None = None
    """Absent from records of earlier versions of the program, and where a sublayer has no H_res."""


class StepTime(Part):
    """Training speed against the baseline, measured alternately in one process. Times in seconds per step."""

    ratio_to_baseline: float
    """Median step time over the baseline's: above 1 is slower."""
    baseline_tokens_per_second: float
    tokens_per_second: float
    quantiles: Quantiles
    n: Count
    """Measured steps of each."""


class Cost(Part):
    """What the run cost. Null: not measured."""

    step_time: StepTime | None
    train_seconds: float | None
    evaluate_seconds: float | None


class Record(Part):
    """One run, finished. Immutable: a correction is a new record."""

    later = frozenset({"correction"})
    schema_version: Literal[2]
    status: Status
    failure: str | None = None
    """Why a run failed, in one line."""
    note: str = ""
    """How the protocol's free choices (the learning rate) were made; shown on the page."""
    identity: Identity
    configuration: dict[str, Json]
    overrides: tuple[str, ...]
    command: str
    provenance: Provenance
    numerics: Numerics | None = None
    started: Started | None = None
    tuning: Tuning | None = None
    supersedes: Sha256 | None = None
    """The digest of the record that this one replaces."""
    correction: str | None = None
    """Why, in one line, where the replaced record had a result."""
    data: dict[str, str]
    """Source, its fingerprint and the tokenizer's digest."""
    digests: Digests | None
    training: Training | None
    evaluation: Evaluation | None
    mechanism: Mechanism | None
    cost: Cost
    side_files: dict[FilePath, Sha256] = Field(default_factory=dict)
    _file_digest: str | None = PrivateAttr(default=None)
    """Of the file that the record was read from: published bytes may be of an older version."""
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        trained = [part is not None for part in (self.training, self.digests, self.mechanism)]
        if self.status != "failed" and not all(trained):
            raise ValueError(f"a {self.status} run needs training, digests and mechanism")
        if self.status == "failed" and any(trained):
            raise ValueError("a run that failed while training has no training: after it, it is partial")
        if self.status == "partial" and self.evaluation is not None:
            raise ValueError("a partial run has no evaluation")
        if (self.failure is None) != (self.status in RESULTS):
            raise ValueError(f"{self.status}: a failed or partial run says why, no other does")
        if self.status == "complete" and self.validation_loss is None:
            raise ValueError("a complete run needs a finite last validation loss")
        return self

    @property
    def validation_loss(self) -> float | None:
        """The loss after training, nats per token; None for a run that did not get there."""
        point = self._last_validation()
        return point.loss if point else None

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of validation text after training; None as for `validation_loss`."""
        point = self._last_validation()
        return point.bits_per_byte if point else None

    def _last_validation(self) -> ValidationPoint | None:
        # A diverged run's last finite loss is that of an earlier step: no result of this protocol.
        if self.training is None or self.status == "diverged" or not self.training.validation:
            return None
        last = self.training.validation[-1]
        return last if last.step == self.training.steps else None

    @property
    def digest(self) -> str:
        """SHA-256 of the record's file: of the bytes it was read from, else of its canonical JSON."""
        return self._file_digest or hashlib.sha256(canonical_json(self).encode()).hexdigest()

    @property
    def path(self) -> Path | None:
        """The file that the record was read from; None for one that was not."""
        return self._path

    def __eq__(self, other: object) -> bool:
        # where a record was read from is no part of what it says
        return isinstance(other, Record) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def curve(self, name: str) -> Curve | None:
        """A sampled curve, or None where the run has none."""
        return self.mechanism.curves.get(name) if self.mechanism else None

    def probe(self, name: str) -> Probe | None:
        """A probe's summary, or None where the run has none."""
        return self.mechanism.probes.get(name) if self.mechanism else None


def canonical_json(record: Record) -> str:
    """The record as its file holds it: equal records give equal bytes."""
    return canonical(record.model_dump(mode="json"))


def canonical(content: dict[str, Any]) -> str:
    """One line per part, keys sorted, floats in their shortest exact form."""
    parts = (f"{_compact(key)}: {_compact(content[key])}" for key in sorted(content))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _compact(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def json_schema() -> str:
    """The JSON Schema of a record, as committed in `results/schema.json`."""
    return json.dumps(Record.model_json_schema(), sort_keys=True, indent=1) + "\n"

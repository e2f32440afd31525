"""What a record is made of: bounded types, and where and how a run came about."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*$", max_length=120)]
"""Names reach tables, file names and pages: no markup, no path, no spreadsheet formula can be one."""
Arm = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:+-]*)?$", max_length=120)]
Quantity = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+/-]*$", max_length=120)]
"""The name of a probe or curve; a slash may group them."""
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]*/seed\d{1,10}$", max_length=140)]
"""A run within its protocol, such as `hc/seed3`."""
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FilePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]


def _finite(value: JsonValue) -> JsonValue:
    """`value` itself, refused when a number inside it is not finite (JSON has no such number)."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite; a diverged value is null")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(item)
    return value


Json = Annotated[JsonValue, BeforeValidator(_finite)]


class Part(BaseModel):
    """What every part of a record keeps: unknown keys, NaN, Infinity and loose types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields younger than published records of this schema version: left out at their default, so that those
    records keep their bytes."""

    # the type is given as a value: pydantic 2.10 would look for the annotation's names in a subclass's module
    @model_serializer(mode="wrap", return_type=dict[str, Any])
    def _as_published(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        unsaid = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: content[name] for name in content if name not in unsaid} if unsaid else content


class Identity(Part):
    """Which run this is."""

    later = frozenset({"perturbation"})
    suite: Name
    arm: Arm = ""
    """Which protocol of a study; empty where a suite has one protocol."""
    protocol_version: Count = 1
    """What the fields of a protocol mean (see `docs/architecture.md`); part of the protocol id."""
    protocol_id: Hex
    cost_id: Hex
    variant: Name
    connection: Name
    """The registered residual connection, or `module:Class`."""
    options: dict[str, Json] = {}
    perturbation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of an A/A run: how far every start weight was moved, relative to its size. No row of a table."""
    seed: Count


class HardwareSpan(Part):
    """The hardware of a run from one step on."""

    after_step: Count
    cost_id: Hex
    devices: Count
    nodes: Count
    sharding: str


class Hardware(Part):
    """Where the run was computed. No host name, no user, no path."""

    cpu: str
    threads: Count
    """CPU threads of each process."""
    processes: Count
    memory_bytes: Count | None
    gpus: tuple[str, ...] = ()


class Provenance(Part):
    """What produced the run. `commit` and `dirty` are null outside a git checkout."""

    commit: str | None
    dirty: bool | None
    version: str
    """The version of mhc-bench."""
    python: str
    platform: str
    packages: dict[str, str]
    lock_hash: Sha256 | None = None
    """Over `name==version` of every package that mhc-bench needs, directly or not, as installed."""
    hardware: Hardware
    hardware_changes: tuple[HardwareSpan, ...] | None = None
    """Of a run that went on with other hardware: what its steps ran on. Its times are those of the last."""
    sharding: dict[str, str] | None = None
    """What FSDP2 split and rounded where, the same for all variants; empty without FSDP2."""


class Numerics(Part):
    """What decides whether a run can be repeated to the bit, as torch had it while training."""

    precision: str
    operations: str
    """Which implementation computed the residual connections' operations (see `docs/operations.md`)."""
    matmul_precision: str
    """torch's setting for products of fp32 matrices: `highest`, `high` or `medium`."""
    deterministic: bool
    """Whether torch refuses operations without a deterministic algorithm."""
    cudnn_benchmark: bool
    cpu_capability: str
    """The vector instructions that torch uses, such as AVX2."""
    cuda: str | None
    """The CUDA version; null for a run on CPUs."""


class Started(Part):
    """What the command set out to run: every one of these runs is reported, or the table is a choice."""

    later = frozenset({"others"})
    seeds: Annotated[tuple[Count, ...], Field(max_length=1000)]
    variants: Annotated[tuple[Name, ...], Field(max_length=100)]
    others: Annotated[tuple[RunName, ...], Field(max_length=10_000)] = ()
    """Further runs of the protocol that stood in the same folder when this one was recorded."""

    @property
    def runs(self) -> Iterator[tuple[str, int]]:
        """Variant and seed of every run."""
        yield from itertools.product(self.variants, self.seeds)
        for name in self.others:
            variant, _, seed = name.partition("/seed")
            yield variant, int(seed)

    def names(self, variant: str, seed: int) -> bool:
        """Whether a run is one of them."""
        return (variant in self.variants and seed in self.seeds) or f"{variant}/seed{seed}" in self.others


class Trial(Part):
    """One trial of the tuned track: a run of its own with one point of the grid."""

    learning_rate: float
    weight_decay: float
    seed: Count
    loss: float | None
    """On the selection split after the last step, nats per token; null for a trial that diverged."""
    record: Sha256
    """The trial's own record."""


class Tuning(Part):
    """What was spent on choosing free values before the runs: the protocol's, or in the tuned track this
    variant's own; null where nobody counted."""

    later = frozenset({"trials"})
    runs: Count | None
    suite: Arm = ""
    """The suite whose records show that search."""
    trials: Annotated[tuple[Trial, ...], Field(max_length=10_000)] = ()
    """Tuned track: every trial of this variant."""

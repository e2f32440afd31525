"""Implementations of the operations by name, and which of them suits a training run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mhc_bench.errors import UsageError, choose
from mhc_bench.ops.compiled import CompiledOperations
from mhc_bench.ops.eager import EagerOperations
from mhc_bench.ops.native.build import compiler, kernels
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.plain import ReferenceOperations

IMPLEMENTATIONS = ("reference", "eager", "compiled", "triton")
AUTO = "auto"

BUILD_SECONDS = 10.0
"""What `compiled` costs a machine once: 4 s of one core with g++ 12, and as much again for slower ones."""
SAVED_SECONDS = 2e-6
"""What it then saves per token and sublayer at least: 2.0 (HC) and 2.6 us (mHC) at width 64, more at 256."""


@dataclass(frozen=True)
class Workload:
    """What of a run decides which implementation suits it; nothing here is read from a clock."""

    accelerator: str
    """`cpu` or `gpu`."""
    token_sublayers: int
    """Tokens of all steps times sublayers, on one process."""
    streams: int
    """n."""


@dataclass(frozen=True)
class Choice:
    """An implementation, and in a few words why it."""

    operations: str
    reason: str


def operations_named(name: str) -> Operations:
    """The implementation called `name`.

    Raises:
        UsageError: there is none, or it cannot work on this machine.
    """
    match choose("operations", name, IMPLEMENTATIONS):
        case "reference":
            return ReferenceOperations()
        case "compiled":
            return CompiledOperations()
        case "triton":
            return _triton()
    return EagerOperations()


def chosen(name: str, work: Workload | None = None) -> Choice:
    """The implementation that `name` stands for: itself, or for `auto` the one that suits `work`.

    Depends on the run and on whether this machine can compile, not on how fast it is. Where `compiled` suits,
    it has been built on return.
    """
    if name != AUTO:
        return Choice(name, "asked for")
    if work is None:
        return Choice("eager", "nothing to compile for")
    if work.accelerator != "cpu":
        return Choice("eager", "a GPU: `triton` has to be asked for until it has been measured on one")
    if work.streams < 2:
        return Choice("eager", "one stream: no maps to compute")
    if work.token_sublayers * SAVED_SECONDS < BUILD_SECONDS:
        return Choice("eager", f"{work.token_sublayers:.1e} tokens x sublayers: too short to compile for")
    if compiler() is None:
        return Choice("eager", "no C++ compiler on this machine")
    return _built(work)


def _built(work: Workload) -> Choice:
    try:
        kernels(work.streams, torch.float32)
    except UsageError as error:
        return Choice("eager", str(error))
    return Choice("compiled", f"{work.token_sublayers:.1e} tokens x sublayers: long enough to compile for")


def _triton() -> Operations:
    """Imported here alone: not every platform has Triton, and no other implementation should wait for it."""
    try:
        from mhc_bench.ops.fused import TritonOperations
    except ModuleNotFoundError as error:
        raise UsageError(f"operations 'triton': expected the package {error.name!r}, or 'eager'") from error
    return TritonOperations()

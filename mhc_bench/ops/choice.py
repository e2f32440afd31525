"""Implementations of the operations by name."""

from __future__ import annotations

from mhc_bench.errors import UsageError, choose
from mhc_bench.ops.eager import EagerOperations
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.plain import ReferenceOperations

IMPLEMENTATIONS = ("reference", "eager", "triton")
AUTO = "auto"


def operations_named(name: str) -> Operations:
    """The implementation called `name`.

    Raises:
        UsageError: there is none, or it cannot work on this machine.
    """
    match choose("operations", name, IMPLEMENTATIONS):
        case "reference":
            return ReferenceOperations()
        case "triton":
            return _triton()
    return EagerOperations()


def chosen(name: str) -> str:
    """The implementation that `name` stands for: itself, or for `auto` the one that suits the run."""
    return "eager" if name == AUTO else name


def _triton() -> Operations:
    """Imported here alone: not every platform has Triton, and no other implementation should wait for it."""
    try:
        from mhc_bench.ops.fused import TritonOperations
    except ModuleNotFoundError as error:
        raise UsageError(f"operations 'triton': expected the package {error.name!r}, or 'eager'") from error
    return TritonOperations()

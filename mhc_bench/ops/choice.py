"""Implementations of the operations by name."""

from __future__ import annotations

from mhc_bench.errors import choose
from mhc_bench.ops.eager import EagerOperations
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.plain import ReferenceOperations

IMPLEMENTATIONS = ("reference", "eager", "compiled")
AUTO = "auto"


def operations_named(name: str) -> Operations:
    """The implementation called `name`.

    Raises:
        UsageError: there is none, or it cannot work on this machine.
    """
    match choose("operations", name, IMPLEMENTATIONS):
        case "reference":
            return ReferenceOperations()
        case "compiled":
            from mhc_bench.ops.compiled import CompiledOperations

            return CompiledOperations()
    return EagerOperations()


def chosen(name: str) -> str:
    """The implementation that `name` stands for: itself, or for `auto` the one that suits the run."""
    return "eager" if name == AUTO else name

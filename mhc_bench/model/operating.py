"""Which implementation of the shared operations a grafted model computes with."""

from __future__ import annotations

from torch import nn

from mhc_bench.model.layers import residual_connections
from mhc_bench.ops.choice import Choice, Workload, chosen, operations_named
from mhc_bench.ops.native.build import compiler as cpp_compiler

__all__ = ["Choice", "Workload", "chosen", "cpp_compiler", "use_operations"]


def use_operations(model: nn.Module, name: str) -> None:
    """Let every residual connection compute with the implementation that `name` stands for.

    `auto` is `eager` here, where no run is known that compiling could pay for.

    Raises:
        UsageError: there is none of that name, or it cannot work on this machine.
    """
    operations = operations_named(chosen(name).operations)
    for connection in residual_connections(model).values():
        connection.use_operations(operations)

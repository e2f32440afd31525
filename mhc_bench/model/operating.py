"""Which implementation of the shared operations a grafted model computes with."""

from __future__ import annotations

from torch import nn

from mhc_bench.model.layers import residual_connections
from mhc_bench.ops.choice import chosen, operations_named


def use_operations(model: nn.Module, name: str) -> None:
    """Let every residual connection compute with the implementation that `name` stands for.

    Raises:
        UsageError: there is none of that name, or it cannot work on this machine.
    """
    operations = operations_named(chosen(name))
    for connection in residual_connections(model).values():
        connection.use_operations(operations)

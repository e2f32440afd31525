"""What `bench ops` gives to every implementation: one operation on tensors of one size, the same for all.

Shapes: N tokens, n streams, C width, in the layout [1, N, n, C]. Peers have layouts of their own; a `Trial`
says how its tensors correspond.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from mhc_bench.ops.choice import operations_named
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.plain import ReferenceOperations
from mhc_bench.ops.types import Coefficients, HcCoefficients, MhcCoefficients
from mhc_bench.training.layers import allow_recompiles

VARIANTS = ("hc", "mhc")
SHARED = ("project", "aggregate", "write")
"""Operations that are the same for every variant."""
ITERATIONS, EPSILON = 20, 1e-6
WITNESS = {"write": "update", "write_read": "update"}
"""Operation -> the operand whose gradient is compared; the stream's where nothing is said. A write may leave
the stream's gradient to the read before it (`Read.through`), so only a whole `site` shows that one."""
Operands = Mapping[str, Any]
"""Name -> tensor or coefficients."""
Results = dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """One operation at one size."""

    operation: str
    variant: str
    """`hc` or `mhc`; empty where the operation is the same for both."""
    tokens: int
    width: int
    streams: int
    dtype: torch.dtype
    device: torch.device

    @property
    def witness(self) -> str:
        """The operand whose gradient is compared."""
        return WITNESS.get(self.operation, "stream")


def same(name: str, tensor: Tensor) -> Tensor:
    """The layout of this suite's own operations."""
    return tensor


@dataclass(frozen=True)
class Trial:
    """One implementation's way through a problem."""

    operands: Operands
    """In its own layout; tensors that need a gradient are leaves."""
    run: Callable[[Operands], Results]
    """Operands to results by name, in its own layout."""
    native: Callable[[str, Tensor], Tensor] = field(default=same)
    """A tensor in our layout, by name, to its own; not timed."""
    common: Callable[[str, Tensor], Tensor] = field(default=same)
    """And back."""

    def leaves(self) -> list[Tensor]:
        """All operands that get a gradient."""
        return [t for t in tree_leaves(dict(self.operands)) if isinstance(t, Tensor) and t.requires_grad]


class Data:
    """The operands of all operations at one size, from a fixed seed: asymmetric, with maps that vary."""

    def __init__(self, problem: Problem) -> None:
        self._generator = torch.Generator(problem.device).manual_seed(0)
        self._device = problem.device
        n, width, tokens = problem.streams, problem.width, problem.tokens
        self.stream = self.draw(1, tokens, n, width).to(problem.dtype)
        self.update = self.draw(1, tokens, width).to(problem.dtype)
        self.coefficients: dict[str, Coefficients] = {"hc": self._hc(n, width), "mhc": self._mhc(n, width)}
        self.weight = self.draw(2 * n + n * n, n * width) / (n * width) ** 0.5
        with torch.no_grad():
            read = ReferenceOperations().read(self.stream, self.coefficients["mhc"])
        self.pre, self.post, self.res = read.pre, read.post, read.res
        self._upstream: dict[str, Tensor] = {}

    def draw(self, *shape: int) -> Tensor:
        """Standard normal numbers in fp32."""
        return torch.randn(*shape, generator=self._generator, device=self._device)

    def upstream(self, name: str, like: Tensor) -> Tensor:
        """The gradient that arrives at the result called `name`, the same for every implementation."""
        if name not in self._upstream or self._upstream[name].shape != like.shape:
            self._upstream[name] = self.draw(*like.shape).to(like.dtype)
        return self._upstream[name]

    def _hc(self, n: int, width: int) -> HcCoefficients:
        static = self.draw(n), 1 + 0.1 * self.draw(n), self.draw(n, n)
        scale = torch.full((1,), 0.1, device=self._device)
        return HcCoefficients(self.draw(2 + n, width) / width**0.5, static, (scale, scale.clone()), EPSILON)

    def _mhc(self, n: int, width: int) -> MhcCoefficients:
        phi = tuple(self.draw(rows, n * width) / (n * width) ** 0.5 for rows in (n, n, n * n))
        bias = tuple(0.5 * self.draw(rows) for rows in (n, n, n * n))
        alpha = tuple(torch.full((1,), 0.5, device=self._device) for _ in range(3))
        return MhcCoefficients(phi, bias, alpha, ITERATIONS, EPSILON)  # type: ignore[arg-type]


def leaf(value: Any) -> Any:
    """A tensor as a leaf that gets a gradient, sharing its memory; anything else as it is."""
    return value.detach().requires_grad_() if isinstance(value, Tensor) else value


def compute(operations: Operations, operation: str, given: Operands) -> Results:
    """One operation by one of our implementations."""
    match operation:
        case "project":
            return {"raw": operations.project(given["stream"], given["weight"], EPSILON)}
        case "aggregate":
            return {"hidden": operations.aggregate(given["stream"], given["pre"])}
        case "write":
            return {"written": operations.write(*_written(given))}
        case "read":
            read = operations.read(given["stream"], given["coefficients"])
        case "write_read":
            read = operations.write_read(*_written(given), given["coefficients"])[1]
        case _:
            read = operations.read(given["stream"], given["coefficients"])
            return {"written": operations.write(read.through, read.hidden, read.post, read.res)}
    return {"hidden": read.hidden, "post": read.post, "res": read.res}


def _written(given: Operands) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return given["through"], given["update"], given["post"], given["res"]


def our_trial(name: str, problem: Problem, data: Data) -> Trial:
    """The operation by the implementation called `name`.

    Raises:
        UsageError: it cannot work on this machine.
    """
    operations = operations_named(name)
    run = functools.partial(compute, operations, problem.operation)
    return Trial(_operands(operations, problem, data), run)


@functools.cache
def _compiled(operation: str, variant: str) -> Callable[[Operands], Results]:
    allow_recompiles()
    run: Callable[[Operands], Results] = torch.compile(
        functools.partial(compute, ReferenceOperations(), operation)
    )
    return run


def compiled_trial(problem: Problem, data: Data) -> Trial:
    """The reference under torch.compile: the first size has code of its own, from the second on sizes are
    variables, as torch decides.
    """
    run = _compiled(problem.operation, problem.variant)
    return Trial(_operands(ReferenceOperations(), problem, data), run)


def _operands(operations: Operations, problem: Problem, data: Data) -> Operands:
    coefficients = data.coefficients[problem.variant or "mhc"]
    operands = {
        "project": {"stream": data.stream, "weight": data.weight},
        "aggregate": {"stream": data.stream, "pre": data.pre},
        "write": {"update": data.update, "post": data.post, "res": data.res},
        "write_read": {
            "update": data.update,
            "post": data.post,
            "res": data.res,
            "coefficients": coefficients,
        },
    }.get(problem.operation, {"stream": data.stream, "coefficients": coefficients})
    made: dict[str, Any] = {name: tree_map(leaf, value) for name, value in operands.items()}
    if problem.operation in WITNESS:
        through = operations.read(leaf(data.stream), data.coefficients["mhc"]).through
        made["through"] = leaf(through)
    return made

"""The residual path of a decoder layer as one graph, against eager."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from mhc_bench.kit.outcome import Failed
from mhc_bench.kit.subject import Subject
from mhc_bench.kit.toys import WIDTH
from mhc_bench.model.families import FAMILIES, Sublayer
from mhc_bench.model.layers import residual_path
from mhc_bench.ops.choice import operations_named
from mhc_bench.residual import ResidualConnection, build

TOLERANCE = 2e-6
"""Relative to a tensor's largest entry: a few roundings."""


class Layer(nn.Module):
    """A decoder layer that is its residual path and little else."""

    def __init__(
        self, variant: str | type[ResidualConnection], operations: str = "eager", **options: Any
    ) -> None:
        super().__init__()
        self.attention_residual, self.mlp_residual = (
            build(variant, width=WIDTH, depth=2, index=index, **options) for index in (0, 1)
        )
        self.family, self.is_first, self.is_last = FAMILIES["llama"], True, True
        drawn = torch.Generator().manual_seed(3)
        self.sublayers = [torch.randn(WIDTH, WIDTH, generator=drawn) / WIDTH**0.5 for _ in range(2)]
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=drawn))
        for connection in (self.attention_residual, self.mlp_residual):
            connection.use_operations(operations_named(operations))

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        output = residual_path(self, hidden, self.apply_sublayer, following=())
        assert isinstance(output, Tensor)
        return output

    def apply_sublayer(self, sublayer: Sublayer, hidden: Tensor) -> Tensor:
        """Some F."""
        weight = self.sublayers[sublayer is self.family.mlp]
        return torch.tanh(hidden @ weight)


def passed(layer: nn.Module, run: Any) -> dict[str, Tensor]:
    """Output and gradients of a weighted sum of it."""
    hidden = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(4)).requires_grad_()
    output = run(hidden)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    (output * weights).sum().backward()
    assert hidden.grad is not None
    grads = {name: each.grad for name, each in layer.named_parameters() if each.grad is not None}
    return {"output": output.detach(), "hidden": hidden.grad, **grads}


def differing(compiled: dict[str, Tensor], eager: dict[str, Tensor]) -> str:
    """The first tensor that is not the eager one but for rounding; empty where there is none."""
    largest = {name: float(each.abs().max()) for name, each in eager.items()}
    for name, expected in eager.items():
        scale = max(largest[name], max(largest.values()) / 10)  # some gradients are zero by construction
        if not float((compiled[name] - expected).abs().max()) <= TOLERANCE * scale:
            return name
    return ""


def compilation(subject: Subject) -> str:
    """Compiles as one graph, and computes and differentiates as eager (torch.compile, backend aot_eager)."""
    layer = Layer(subject.variant, **subject.options)
    twin = copy.deepcopy(layer)
    eager = passed(layer, layer)
    torch._dynamo.reset()
    try:
        compiled = passed(twin, torch.compile(twin, fullgraph=True, backend="aot_eager"))
    except torch._dynamo.exc.TorchDynamoException as error:
        raise _broken_graph(subject, error) from error
    finally:
        torch._dynamo.reset()
    if name := differing(compiled, eager):
        raise Failed(f"compiled, {name} differs from eager", "read")
    return ""


def _broken_graph(subject: Subject, error: Exception) -> Failed:
    """The reason that dynamo gives, and the method of the variant in which it stopped."""
    told = str(error)
    reason = next((line.strip() for line in told.splitlines() if line.strip()), type(error).__name__)
    methods = re.findall(r"line \d+, in (\w+)", told)
    own = [name for name in methods if any(name in vars(cls) for cls in subject.kind.__mro__)]
    return Failed(f"the graph breaks: {reason}", own[-1] if own else "")

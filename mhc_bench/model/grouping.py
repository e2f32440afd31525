"""Which parameters take weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from mhc_bench.model.layers import parameter_owners


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: `decayed` and `plain`.

    Decayed are the backbone's matrices: projections, experts, routers and an output head of its own. Not
    decayed are embeddings (also where the output head shares them), norms and biases. Of a residual
    connection's parameters those decay that its `decayed_parameters()` names.
    """
    decayed = decayed_names(model)
    chosen = {True: [], False: []}  # type: dict[bool, list[nn.Parameter]]
    for name, parameter in model.named_parameters():
        chosen[name in decayed].append(parameter)
    groups = [("decayed", weight_decay, chosen[True]), ("plain", 0.0, chosen[False])]
    return [{"name": name, "params": found, "weight_decay": rate} for name, rate, found in groups if found]


def decayed_names(model: nn.Module) -> set[str]:
    """The qualified names of the parameters that take weight decay."""
    owners = parameter_owners(model)
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    names = set()
    for name, parameter in model.named_parameters():
        if name in owners:
            connection, own_name = owners[name]
            if own_name in connection.decayed_parameters():
                names.add(name)
        elif parameter.ndim >= 2 and id(parameter) not in embeddings:
            names.add(name)
    return names

"""The connections of transformers' DeepSeek-V4 and those of `mhc-v4`: the same numbers in two layouts.

DeepSeek-V4 keeps, for each attention (`attn_hc`) and MLP (`ffn_hc`), `fn` [n (n + 2), n*C], `base`
[n (n + 2)] and `scale` [3], in the order pre, post, comb; comb is H_res transposed, row-major as [in, out].
`hc_head` has `hc_fn` [n, n*C], `hc_base` [n] and `hc_scale` [1]. Read from transformers' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.residual.mhc import ManifoldHyperConnection

SITES = ("attn_hc", "ffn_hc")
"""Of sublayers 2k and 2k + 1."""
HEAD = {"hc_fn": "head_phi", "hc_base": "head_bias", "hc_scale": "head_alpha"}
"""Of the head: its name there -> the last connection's parameter."""
KINDS = {"fn": "phi", "base": "bias", "scale": "alpha"}
"""Of a sublayer: its name there -> the parameters that it holds, for pre, post and res."""
PARTS = ("pre", "post", "res")

Connections = Sequence[ManifoldHyperConnection]
"""All connections of a model, in the order of the sublayers."""


@torch.no_grad()
def to_deepseek_v4(connections: Connections, prefix: str = "model.") -> dict[str, Tensor]:
    """The connections' weights by their names in a state dict of `DeepseekV4ForCausalLM`; copies, fp32.

    Raises:
        UsageError: connections without DeepSeek-V4's head.
    """
    _require_head(connections)
    state = {}
    for index, connection in enumerate(connections):
        own = dict(connection.named_parameters())
        for theirs, ours in KINDS.items():
            parts = [_transposed(own[f"{ours}_{part}"], part, ours, connection.streams) for part in PARTS]
            state[f"{_site(prefix, index)}.{theirs}"] = torch.cat(parts).clone()
    last = dict(connections[-1].named_parameters())
    return state | {f"{prefix}hc_head.{theirs}": last[ours].clone() for theirs, ours in HEAD.items()}


@torch.no_grad()
def load_deepseek_v4(connections: Connections, state: Mapping[str, Tensor], prefix: str = "model.") -> None:
    """Fill the connections from a state dict of `DeepseekV4ForCausalLM`; its other entries are left alone.

    Everything is checked before anything is written.

    Raises:
        UsageError: connections without DeepSeek-V4's head, a missing entry, or one of another shape.
    """
    wanted = to_deepseek_v4(connections, prefix)
    for name, like in wanted.items():
        if name not in state:
            raise UsageError(
                f"no {name}: expected the weights of DeepSeek-V4 with {len(connections) // 2} layers"
            )
        if state[name].shape != like.shape:
            raise UsageError(f"{name} is {list(state[name].shape)}: expected {list(like.shape)}")
    for index, connection in enumerate(connections):
        own, n = dict(connection.named_parameters()), connection.streams
        for theirs, ours in KINDS.items():
            sizes = [own[f"{ours}_{part}"].shape[0] for part in PARTS]
            pieces = torch.split(state[f"{_site(prefix, index)}.{theirs}"], sizes)
            for part, piece in zip(PARTS, pieces, strict=True):
                own[f"{ours}_{part}"].copy_(_transposed(piece, part, ours, n))
    last = dict(connections[-1].named_parameters())
    for theirs, ours in HEAD.items():
        last[ours].copy_(state[f"{prefix}hc_head.{theirs}"])


def _site(prefix: str, index: int) -> str:
    return f"{prefix}layers.{index // 2}.{SITES[index % 2]}"


def _transposed(values: Tensor, part: str, kind: str, n: int) -> Tensor:
    """H_res's rows [n*n, ...] from [out, in] to [in, out] or back; everything else as it is."""
    if part != "res" or kind == "alpha":
        return values
    return values.reshape(n, n, -1).transpose(0, 1).reshape(values.shape)


def _require_head(connections: Connections) -> None:
    if not connections or not all(isinstance(each, ManifoldHyperConnection) for each in connections):
        raise UsageError(
            "DeepSeek-V4's weights: expected the connections of mhc-v4, all of a model's sublayers"
        )
    if len(connections) % 2 or not connections[-1].has_head:
        raise UsageError(
            "DeepSeek-V4's weights: expected attention and MLP of each layer, and reduction: learned"
        )

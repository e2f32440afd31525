"""The health of a grafted model's residual connections, measured in one forward pass.

Shape legend: B batch, T time, n streams, C width, L sublayers. H_res of sublayer l is `res[out, in]`, so
that the shallow-to-deep path of a token is the product H_L ... H_1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mhc_bench.residual import Carry, Maps, ResidualConnection

Row = dict[str, float]
Read = Callable[[Tensor], tuple[Tensor, Carry]]


class Probe:
    """Watches what each connection reads. Use as a context manager around one forward pass, then `measure()`.

    Args:
        connections: by name, in the order of their sublayers.
    """

    def __init__(self, connections: Mapping[str, ResidualConnection]) -> None:
        self.connections = list(connections.values())
        self.streams: list[Tensor] = []
        self.maps: list[Maps | None] = []
        self._own_reads: list[Read | None] = []

    def __enter__(self) -> Probe:
        for connection in self.connections:
            # FSDP2 has put a `read` of its own on the instance; elsewhere there is the class's alone
            self._own_reads.append(vars(connection).get("read"))
            setattr(connection, "read", self._watched(connection, connection.read))  # noqa: B010
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection, own in zip(self.connections, self._own_reads, strict=True):
            del connection.read
            if own is not None:
                setattr(connection, "read", own)  # noqa: B010

    def _watched(self, connection: ResidualConnection, read: Read) -> Read:
        def watch(stream: Tensor) -> tuple[Tensor, Carry]:
            maps = connection.maps(stream)
            self.streams.append(stream.detach())
            self.maps.append(None if maps is None else Maps(*(each.detach().double() for each in maps)))
            return read(stream)

        return watch

    def measure(self) -> tuple[Row, list[Row]]:
        """What the watched pass showed: scalars of the whole model, and one row per sublayer.

        Gains are the Amax magnitudes of arXiv 2512.24880: the largest absolute row sum of a matrix forward,
        the largest absolute column sum backward; here their mean over tokens. Names that end in `_of_means`
        multiply matrices averaged over the tokens of the first sequence, as that paper's wording suggests.
        A quantity that has no meaning for a variant is left out.
        """
        rows = [
            {"sublayer": float(index), **sublayer_row(stream, maps), **gates(connection)}
            for index, (connection, stream, maps) in enumerate(
                zip(self.connections, self.streams, self.maps, strict=True)
            )
        ]
        mixers = [maps.res for maps in self.maps if maps is not None]
        if len(mixers) < len(rows):
            return stream_scalars(rows), rows
        for row, forward, backward in zip(rows, *composite_profile(mixers), strict=True):
            row |= {"composite_forward_gain": forward, "composite_backward_gain": backward}
        return composite_scalars(mixers) | map_scalars(rows) | stream_scalars(rows), rows


def forward_gain(matrix: Tensor) -> Tensor:
    """Largest absolute row sum, [..., n, n] -> [...]."""
    return matrix.sum(-1).abs().amax(-1)


def backward_gain(matrix: Tensor) -> Tensor:
    """Largest absolute column sum, [..., n, n] -> [...]."""
    return matrix.sum(-2).abs().amax(-1)


def product(mixers: list[Tensor]) -> Tensor:
    """H_L ... H_1, [..., n, n]."""
    total = mixers[0]
    for mixer in mixers[1:]:
        total = mixer @ total
    return total


def composite_scalars(mixers: list[Tensor]) -> Row:
    """The product over all sublayers: gains, their form on averaged matrices, extremes of its sums."""
    whole = product(mixers)
    averaged = product([mixer[0].mean(0) for mixer in mixers])
    rows, columns = whole.sum(-1), whole.sum(-2)
    found = {
        "composite_forward_gain": forward_gain(whole),
        "composite_backward_gain": backward_gain(whole),
        "composite_forward_gain_of_means": forward_gain(averaged),
        "composite_backward_gain_of_means": backward_gain(averaged),
        "composite_row_sum_min": rows.amin(-1),
        "composite_row_sum_max": rows.amax(-1),
        "composite_column_sum_min": columns.amin(-1),
        "composite_column_sum_max": columns.amax(-1),
    }
    return {name: value.mean().item() for name, value in found.items()}


def composite_profile(mixers: list[Tensor]) -> tuple[list[float], list[float]]:
    """Per sublayer l: forward gain of H_l ... H_1, and backward gain of H_L ... H_l, mean over tokens."""
    forward, backward = list[float](), list[float]()
    below, above = mixers[0], mixers[-1]
    for index in range(len(mixers)):
        below = mixers[index] @ below if index else below
        above = above @ mixers[-1 - index] if index else above
        forward.append(forward_gain(below).mean().item())
        backward.append(backward_gain(above).mean().item())
    return forward, backward[::-1]


def sublayer_row(stream: Tensor, maps: Maps | None) -> Row:
    """One sublayer's own figures: means over tokens, errors as the largest over tokens."""
    row = stream_row(stream)
    if maps is None:
        return row
    res, n = maps.res, maps.res.shape[-1]
    identity = torch.eye(n, dtype=res.dtype, device=res.device)
    return row | {
        "forward_gain": forward_gain(res).mean().item(),
        "backward_gain": backward_gain(res).mean().item(),
        "row_sum_error": (res.sum(-1) - 1).abs().max().item(),
        "column_sum_error": (res.sum(-2) - 1).abs().max().item(),
        "identity_distance": (res - identity).norm(dim=(-2, -1)).mean().item(),
        "uniform_distance": (res - 1 / n).norm(dim=(-2, -1)).mean().item(),
        "diagonal": res.diagonal(dim1=-2, dim2=-1).mean().item(),
        "token_spread": res.flatten(0, -3).std(0, correction=0).mean().item(),
        "pre_mean": maps.pre.mean().item(),
        "pre_max": maps.pre.amax(-1).mean().item(),
        "post_mean": maps.post.mean().item(),
        "post_max": maps.post.amax(-1).mean().item(),
    }


def stream_row(stream: Tensor) -> Row:
    """Effective rank and mean pairwise cosine of the streams that a sublayer reads; empty for a plain stream.

    The effective rank is the exponential of the entropy of the normalised singular values (Roy and
    Vetterli 2007).
    """
    if stream.ndim < 4 or stream.shape[-2] == 1:
        return {}
    x = stream.double().flatten(0, -3)
    n = x.shape[-2]
    gram = x @ x.mT
    spectrum = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = spectrum / spectrum.sum(-1, keepdim=True)
    length = gram.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    cosine = gram / (length.unsqueeze(-1) * length.unsqueeze(-2))
    pairs = (cosine.sum((-2, -1)) - n) / (n * (n - 1))
    return {
        "stream_rank": torch.special.entr(share).sum(-1).exp().mean().item(),
        "stream_cosine": pairs.mean().item(),
    }


def gates(connection: ResidualConnection) -> Row:
    """A connection's scalar parameters by name: the α's of mHC, the scales of HC. Collective when sharded."""
    values = {name: p.detach() for name, p in connection.named_parameters() if p.numel() == 1}
    whole = {name: v.full_tensor() if isinstance(v, DTensor) else v for name, v in values.items()}
    return {f"gate_{name}": value.item() for name, value in whole.items()}


def map_scalars(rows: list[Row]) -> Row:
    """Largest gains and errors over the sublayers, means of the distances and gates."""
    largest = ("forward_gain", "backward_gain", "row_sum_error", "column_sum_error")
    gate_names = [name for name in rows[0] if name.startswith("gate_")]
    averaged = ["identity_distance", "uniform_distance", "diagonal", *gate_names]
    return {f"sublayer_{name}_max": max(row[name] for row in rows) for name in largest} | {
        f"{name}_mean": sum(row[name] for row in rows) / len(rows) for name in averaged
    }


def stream_scalars(rows: list[Row]) -> Row:
    """Rank and cosine of the streams that the last sublayer reads."""
    return {f"last_{name}": rows[-1][name] for name in ("stream_rank", "stream_cosine") if name in rows[-1]}

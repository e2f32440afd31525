"""What the operations are given and give. Shapes: n streams, C width, `...` batch and time, K map entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Triple = tuple[Tensor, Tensor, Tensor]
"""One tensor for each of pre, post and res."""


class HcCoefficients(NamedTuple):
    """What dynamic Hyper-Connections make their maps from: see `reference.hc_maps`."""

    weight: Tensor
    """[2 + n, C]."""
    static: Triple
    """[n], [n] and [n, n]."""
    scale: tuple[Tensor, Tensor]
    """[1] each: of pre and res, of post."""
    epsilon: float


class MhcCoefficients(NamedTuple):
    """What mHC makes its maps from: see `reference.mhc_maps`."""

    phi: Triple
    """[n, n*C], [n, n*C] and [n*n, n*C]."""
    bias: Triple
    """[n], [n] and [n*n]."""
    alpha: Triple
    """[1] each."""
    iterations: int
    epsilon: float


class ProjectedCoefficients(NamedTuple):
    """Maps that are any function of an RMS-normalised projection of all streams: mHC's relatives."""

    weight: Tensor
    """[K, n*C]."""
    epsilon: float
    activate: Callable[[Tensor], Triple]
    """Projection [..., K] in fp32 at least -> pre [..., n], post [..., n] and res [..., n, n]."""


class StaticCoefficients(NamedTuple):
    """Maps that are the same for every token, in fp32 at least."""

    pre: Tensor
    """[n]."""
    post: Tensor
    """[n]."""
    res: Tensor
    """[n, n] as [out, in]."""


class ComputedCoefficients(NamedTuple):
    """Maps that are any function of the streams, for what no implementation has by heart."""

    maps: Callable[[Tensor], Triple]
    """Streams [..., n, C] in fp32 at least -> pre [..., n], post [..., n] and res [..., n, n]."""


Coefficients = (
    HcCoefficients | MhcCoefficients | ProjectedCoefficients | StaticCoefficients | ComputedCoefficients
)


class Read(NamedTuple):
    """What reading the streams gives."""

    hidden: Tensor
    """[..., C], the sublayer's input, in the dtype of the streams."""
    pre: Tensor
    """[..., n], H_pre, fp32 at least."""
    post: Tensor
    """[..., n], H_post."""
    res: Tensor
    """[..., n, n] as [out, in], H_res."""
    through: Tensor
    """[..., n, C], the streams as `write` has to be given them. An implementation may leave the part of
    their gradient that comes through `write` to the backward pass of the read: one pass for both."""

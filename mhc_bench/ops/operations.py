"""The operations of stream-mixing residual connections, whatever computes them.

Shapes: n streams, C width, `...` batch and time. Maps are fp32 at least whatever the streams' dtype.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.ops.precision import shaped, widened, without_autocast
from mhc_bench.ops.types import (
    Coefficients,
    ComputedCoefficients,
    HcCoefficients,
    MhcCoefficients,
    ProjectedCoefficients,
    Read,
    StaticCoefficients,
)


class Operations(ABC):
    """One implementation. It holds no state: a connection keeps a reference to it and calls it."""

    name: ClassVar[str]

    def read(self, stream: Tensor, coefficients: Coefficients) -> Read:
        """Maps of every token of `stream` [..., n, C], and H_pre x."""
        match coefficients:
            case HcCoefficients():
                return self.hc_read(stream, coefficients)
            case MhcCoefficients():
                return self.mhc_read(stream, coefficients)
            case StaticCoefficients():
                return self.static_read(stream, coefficients)
            case ComputedCoefficients():
                return self.computed_read(stream, coefficients)
        return self.projected_read(stream, coefficients)

    def projected_read(self, stream: Tensor, coefficients: ProjectedCoefficients) -> Read:
        """`read` by composition: the projection and H_pre x are the implementation's, the rest is torch's."""
        pre, post, res = coefficients.activate(
            self.project(stream, coefficients.weight, coefficients.epsilon)
        )
        return Read(self.aggregate(stream, pre), pre, post, res, stream)

    def static_read(self, stream: Tensor, coefficients: StaticCoefficients) -> Read:
        """`read` by composition, with the same maps for every token."""
        tokens = stream.shape[:-2]
        pre, post, res = (
            each.expand(*tokens, *each.shape).clone(memory_format=torch.contiguous_format)
            for each in coefficients
        )
        return Read(self.aggregate(stream, pre), pre, post, res, stream)

    def computed_read(self, stream: Tensor, coefficients: ComputedCoefficients) -> Read:
        """`read` by composition: only H_pre x is the implementation's."""
        with without_autocast(stream):
            pre, post, res = coefficients.maps(widened(stream))
        return Read(self.aggregate(stream, pre), pre, post, res, stream)

    def project(self, stream: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """[..., K]: vec(x) / rms(vec(x)) times `weight` [K, n*C] transposed; some have a faster one."""
        with without_autocast(stream):
            return reference.project(widened(stream), weight, epsilon)

    def aggregate(self, stream: Tensor, pre: Tensor) -> Tensor:
        """H_pre x: [..., C] in the dtype of `stream`; some have a faster one."""
        with without_autocast(stream):
            hidden = reference.read(widened(stream), pre).to(stream.dtype)
            return shaped(hidden, *hidden.shape)

    def write_read(
        self, through: Tensor, update: Tensor, post: Tensor, res: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, Read]:
        """`write`, then the next sublayer's `read` of what was written; implementations may fuse the two."""
        written = self.write(through, update, post, res)
        return written, self.read(written, coefficients)

    @abstractmethod
    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        """`read` for Hyper-Connections."""

    @abstractmethod
    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        """`read` for mHC."""

    @abstractmethod
    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        """H_res x + H_post^T F: [..., n, C] in the dtype of `through`, which is `Read.through`."""

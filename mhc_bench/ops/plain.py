"""The operations as `reference` has them: plain differentiable torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_bench.ops import reference
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.precision import widened, without_autocast
from mhc_bench.ops.types import HcCoefficients, MhcCoefficients, Read, Triple


class ReferenceOperations(Operations):
    """The oracle: slow, and every tensor in between is kept for the backward pass."""

    name = "reference"

    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        with without_autocast(stream):
            maps = reference.hc_maps(widened(stream), *coefficients)
        return self._read(stream, maps)

    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        phi, bias, alpha, iterations, epsilon = coefficients
        with without_autocast(stream):
            maps = reference.mhc_maps(
                widened(stream), torch.cat(phi), torch.cat(bias), torch.cat(alpha), iterations, epsilon
            )
        return self._read(stream, maps)

    def _read(self, stream: Tensor, maps: Triple) -> Read:
        pre, post, res = maps
        return Read(self.aggregate(stream, pre), pre, post, res, stream)

    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        with without_autocast(through):
            return reference.write(widened(through), widened(update), post, res).to(through.dtype)

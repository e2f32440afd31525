"""The operations in eager torch with hand-written backward passes: on any device, nothing to compile."""

from __future__ import annotations

from torch import Tensor

from mhc_bench.ops import reference, streams
from mhc_bench.ops.hc import hc_read
from mhc_bench.ops.mhc import mhc_read
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.precision import shaped, widened, without_autocast
from mhc_bench.ops.types import HcCoefficients, MhcCoefficients, Read


class EagerOperations(Operations):
    """Long vector operations, and little kept between the passes."""

    name = "eager"

    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        return Read(*hc_read(stream, *coefficients), stream)

    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        return Read(*mhc_read(stream, *coefficients), stream)

    def project(self, stream: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        with without_autocast(stream):
            return reference.project(widened(stream), weight, epsilon)

    def aggregate(self, stream: Tensor, pre: Tensor) -> Tensor:
        with without_autocast(stream):
            hidden = reference.read(widened(stream), pre).to(stream.dtype)
            return shaped(hidden, *hidden.shape)

    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        return streams.write(through, update, post, res)

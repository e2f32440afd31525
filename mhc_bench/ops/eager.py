"""The operations in eager torch with hand-written backward passes: on any device, nothing to compile."""

from __future__ import annotations

from torch import Tensor

from mhc_bench.ops import streams
from mhc_bench.ops.hc import hc_read
from mhc_bench.ops.mhc import mhc_read
from mhc_bench.ops.operations import Operations
from mhc_bench.ops.types import HcCoefficients, MhcCoefficients, Read


class EagerOperations(Operations):
    """Long vector operations, and little kept between the passes."""

    name = "eager"

    def hc_read(self, stream: Tensor, coefficients: HcCoefficients) -> Read:
        return Read(*hc_read(stream, *coefficients), stream)

    def mhc_read(self, stream: Tensor, coefficients: MhcCoefficients) -> Read:
        return Read(*mhc_read(stream, *coefficients), stream)

    def write(self, through: Tensor, update: Tensor, post: Tensor, res: Tensor) -> Tensor:
        return streams.write(through, update, post, res)

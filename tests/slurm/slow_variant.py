"""The plain residual connection, slowly: a run that lasts long enough to be disturbed, on any machine."""

from __future__ import annotations

import time

from torch import Tensor

from mhc_bench.residual import Carry
from mhc_bench.residual.baseline import Baseline

SECONDS = 0.05
"""Of each sublayer and forward pass."""


class Slow(Baseline):
    """Sleeps before it is read, and computes what the baseline computes."""

    def read(self, stream: Tensor) -> tuple[Tensor, Carry]:
        time.sleep(SECONDS)
        return super().read(stream)

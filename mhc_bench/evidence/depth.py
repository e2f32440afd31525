"""The part of a record that says how gains and mixing matrices go over depth."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from mhc_bench.evidence.parts import Count, Part
from mhc_bench.limits import MOST_STREAMS

MOST_SUBLAYERS = 2000
Gains = Annotated[tuple[float | None, ...], Field(max_length=MOST_SUBLAYERS)]
"""One number per sublayer, from the first; null where it was not finite."""
Row = Annotated[tuple[float | None, ...], Field(max_length=MOST_STREAMS)]
Matrix = Annotated[tuple[Row, ...], Field(min_length=1, max_length=MOST_STREAMS)]
"""`[out][in]`; null where an entry was not finite."""


class Depth(Part):
    """What the last probe saw, sublayer by sublayer. Gains and matrices are means over the probe's tokens."""

    step: Count
    forward_gain: Gains
    """Amax over rows of H_res; 1 in a plain residual connection."""
    backward_gain: Gains
    """Amax over columns."""
    composite_forward_gain: Gains
    """At l: of the product of the sublayers from the first to l."""
    composite_backward_gain: Gains
    """At l: of the product of the sublayers from l to the last."""
    mixing: Annotated[tuple[Matrix, ...], Field(min_length=1, max_length=MOST_SUBLAYERS)]
    """H_res of each sublayer, to six digits."""
    product: Matrix
    """The product of all of them, multiplied for each token and then averaged."""

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        sublayers, n = len(self.mixing), len(self.product)
        gains = (
            self.forward_gain,
            self.backward_gain,
            self.composite_forward_gain,
            self.composite_backward_gain,
        )
        if any(len(each) != sublayers for each in gains):
            raise ValueError(f"{sublayers} matrices for {', '.join(str(len(each)) for each in gains)} gains")
        for matrix in (*self.mixing, self.product):
            if len(matrix) != n or any(len(row) != n for row in matrix):
                raise ValueError(f"matrices must be {n} x {n}, as the product is")
        return self

"""The I/O model: what a residual connection moves between memory and the processor, at least.

Counted per token, in hidden states of C elements (a *unit*), for n streams; the maps' own n + n + n*n numbers
are counted beside. Left out: parameters, which all tokens share, and what is kept on chip. Sources: table 2
of arXiv 2512.24880 for the unfused forward pass; the rest follows from which tensors an operation has to read
and to write once. Everything that a bench divides by is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pass = Literal["forward", "backward"]
Level = Literal["unfused", "fused", "joined", "resident"]
"""How far the operations of one sublayer are put together.

`unfused`: one pass over memory for each operation of the formula, as eager code does it. `fused`: one each
for the maps, H_pre x and the write, forward and backward. `joined`: the write also makes the next sublayer's
projection, and one backward pass collects the stream's gradient from write, read and maps. `resident`: a
token's n*C numbers stay on chip from one sublayer's output to the next one's input.
"""
LEVELS: tuple[Level, ...] = ("unfused", "fused", "joined", "resident")
DIRECTIONS: tuple[Pass, ...] = ("forward", "backward")
OPERATIONS = ("project", "aggregate", "read", "write", "write_read", "site")
"""What `bench ops` measures: methods of `mhc_bench.ops.operations`, and a whole sublayer around F(h) = h."""


@dataclass(frozen=True)
class Traffic:
    """What one token moves."""

    read: int
    """Units read."""
    written: int
    """Units written."""
    maps: int = 0
    """Numbers of maps or their gradients, read or written."""

    @property
    def units(self) -> int:
        """Read and written."""
        return self.read + self.written

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.read + other.read, self.written + other.written, self.maps + other.maps)

    def bytes(self, tokens: int, width: int, itemsize: int, map_itemsize: int = 4) -> int:
        """Bytes for `tokens` tokens of C = `width`; maps are fp32."""
        return tokens * (self.units * width * itemsize + self.maps * map_itemsize)


def plain_traffic() -> Traffic:
    """A plain residual's sublayer: x + F(x) forward, and backward the sum of the two gradients of x."""
    return Traffic(2, 1)


def operation_traffic(operation: str, n: int, direction: Pass) -> Traffic:
    """The least that one operation has to move by itself, every operand once.

    Raises:
        KeyError: no such operation.
    """
    m = n * n
    forward, backward = {
        # x -> projection
        "project": (Traffic(n, 0, 2 * n + m), Traffic(n, n, 2 * n + m)),
        # x, pre -> h
        "aggregate": (Traffic(n, 1, n), Traffic(n + 1, n, 2 * n)),
        # x -> maps, h: the token's x stays on chip between the two
        "read": (Traffic(n, 1, 2 * n + m), Traffic(n + 1, n, 2 * n + m)),
        # x, F, post, res -> y
        "write": (Traffic(n + 1, n, n + m), Traffic(2 * n + 1, n + 1, 2 * (n + m))),
        # x, F, post, res -> y, next maps, next h; backward without a gradient of y from later sublayers
        "write_read": (
            Traffic(n + 1, n + 1, 3 * n + 2 * m),
            Traffic(2 * n + 2, n + 1, 4 * n + 3 * m),
        ),
        # `read`, then `write` of h: between them lies a sublayer, so x is read twice, also backward
        "site": (Traffic(2 * n + 1, n + 1, 4 * n + 2 * m), Traffic(4 * n + 2, n + 1, 6 * n + 5 * m)),
    }[operation]
    return forward if direction == "forward" else backward


def sublayer_traffic(n: int, direction: Pass, level: Level) -> Traffic:
    """What the residual connection of one sublayer moves, from the stream before to the stream after."""
    forward, backward = _SUBLAYER[level](n)
    return forward if direction == "forward" else backward


def _unfused(n: int) -> tuple[Traffic, Traffic]:
    """Table 2 row by row: maps, H_pre, H_post, H_res, merge; backward the same, and x's gradients summed.

    The merge hands its gradient on as it is.
    """
    m, k = n * n, n * n + 2 * n
    forward = Traffic(n, 0, k) + Traffic(n, 1, n) + Traffic(1, n, n) + Traffic(n, n, m) + Traffic(2 * n, n)
    backward = Traffic(2 * n, n, 2 * m) + Traffic(n + 1, 1, 2 * n) + Traffic(n + 1, n, 2 * n)
    return forward, backward + Traffic(n, n, k) + Traffic(4 * n, 2 * n)


def _fused(n: int) -> tuple[Traffic, Traffic]:
    steps = ("project", "aggregate", "write")
    forward, backward = (
        sum((operation_traffic(each, n, direction) for each in steps), Traffic(0, 0))
        for direction in DIRECTIONS
    )
    return forward, backward


def _joined(n: int) -> tuple[Traffic, Traffic]:
    """Forward: write with projection, then H_pre x. Backward: gradients of F and maps, then of the stream."""
    m = n * n
    forward = operation_traffic("write", n, "forward") + operation_traffic("aggregate", n, "forward")
    first = Traffic(2 * n + 1, 1, 2 * (n + m))
    second = Traffic(2 * n + 1, n, 2 * n + 2 * m)
    return forward + Traffic(0, 0, 2 * n + m), first + second


def _resident(n: int) -> tuple[Traffic, Traffic]:
    """Between two sublayers: x and F in, y and h out; backward dy, dh, y, x and F in, dx and dF out."""
    m = n * n
    return Traffic(n + 1, n + 1, 3 * n + 2 * m), Traffic(3 * n + 2, n + 1, 4 * n + 3 * m)


def kernel_traffic(n: int, sublayers: int, direction: Pass) -> Traffic:
    """What the Triton kernels move for a model of `sublayers` sublayers, maps left out.

    The first read and the last write stand alone; every other write is one with the read that follows.
    Forward: maps, H_pre x; the write with the next projection, H_pre x. Backward: maps (y, dh), weight (y)
    and streams (x, F, dy, dh to dx, dF) of a write and the read after it, where y is made again.
    """
    if direction == "forward":
        read, write, between = Traffic(2 * n, 1), Traffic(n + 1, n), Traffic(2 * n + 1, n + 1)
    else:
        read, write = Traffic(3 * n + 2, n), Traffic(2 * n + 1, n + 1)
        between = Traffic(n + 1, 0) + Traffic(n, 0) + Traffic(2 * n + 2, n + 1)
    return sum([between] * (sublayers - 1), read + write)


_SUBLAYER = {"unfused": _unfused, "fused": _fused, "joined": _joined, "resident": _resident}


def kept_units(n: int, sublayers: int, recompute: str, block: int = 1) -> float:
    """Hidden states per token that the paper's table 3 keeps for the backward pass, over a whole model.

    n = 1 is a plain residual, for which the same count holds without H_pre x, which is its stream, and
    without F's output, which a sum does not keep.

    Args:
        recompute: `none`, `layer` (a stream for every two sublayers) or `block` (a stream for every `block`
            sublayers and F's output for each).
        block: sublayers in a block, the paper's L_r.

    Raises:
        KeyError: no such recomputation.
    """
    starts = -(-sublayers // block)
    none = (n + 3) * sublayers if n > 1 else 2 * sublayers
    return {"none": none, "layer": n * sublayers / 2, "block": n * starts + sublayers}[recompute]

"""How large a piece of the streams a program takes: chosen from n, C and (in a few steps) the token count.

Chosen so that nothing spills when compiled for sm_90; not tuned on a device.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from mhc_bench.errors import UsageError

PRECISION = "tf32x3"
"""Of products on tensor cores: three TF32 products, about fp32. Sums are fp32."""
PROGRAMS = 512
"""Enough programs to fill a large GPU. A constant, so that results do not depend on the device."""
ELEMENTS = 8
"""Channels that lie in one thread where sums run over channels."""


class Sizes(NamedTuple):
    """Of a stream [..., n, C]."""

    tokens: int
    n: int
    width: int


class Blocks(NamedTuple):
    """What a program takes, and with how many warps."""

    tokens: int
    channels: int
    warps: int


def sizes_of(stream: Tensor) -> Sizes:
    """N, n and C of a stream.

    Raises:
        UsageError: more streams than the kernels are made for.
    """
    n, width = stream.shape[-2:]
    if not 1 <= n <= 8:
        raise UsageError(f"streams {n}: expected 1 to 8 for the Triton kernels")
    return Sizes(stream.numel() // (n * width), n, width)


def table_shape(n: int) -> tuple[int, int]:
    """Rows and columns of the padded table of a token's maps."""
    return (8, 4) if n <= 4 else (triton.next_power_of_2(2 + n), 8)


def most_rows(n: int) -> int:
    """Of a weight that one launch projects with."""
    return 64 if n <= 4 else 128  # 128 would spill where blocks have 64 channels


def channels(width: int, most: int) -> int:
    """The channels of a block: a power of two of at least 16, what a tensor core takes."""
    return int(min(most, max(16, triton.next_power_of_2(width))))


def _blocks(sizes: Sizes, tokens: int, most: int) -> Blocks:
    """At most `most` channels, and the warps that most kernels have."""
    return Blocks(tokens, channels(sizes.width, most), 4 if sizes.n <= 4 else 8)


def product_blocks(sizes: Sizes) -> Blocks:
    """Of kernels that project: many tokens share each weight that is loaded."""
    most = 32 if sizes.n in (2, 3) else 64  # 64 tokens of two or three streams in fp32 would spill
    fitting = [tokens for tokens in (32, 64) if tokens <= most and sizes.tokens >= tokens * PROGRAMS // 2]
    return _blocks(sizes, max(fitting, default=16), 64 if sizes.n <= 4 else 32)


def mixing_blocks(sizes: Sizes) -> Blocks:
    """Of kernels that hold all streams of a few tokens in registers."""
    return Blocks(4, channels(sizes.width, 256), 4)


def mixing_backward_blocks(sizes: Sizes) -> Blocks:
    """Of their backward passes, which hold sums beside the streams."""
    return _blocks(sizes, 4, 256)


def write_read_blocks(sizes: Sizes) -> Blocks:
    """Of the write that projects what it writes: 32 tokens share each weight that is loaded.

    Where rows of the streams are not aligned, addresses take the registers of the others.
    """
    if sizes.width % 16:
        return _blocks(sizes, 16, 16)
    return Blocks(32, channels(sizes.width, 32 if sizes.n <= 4 else 16), 4)


def sum_blocks(sizes: Sizes) -> Blocks:
    """Of the maps' backward pass: a thread holds the table of about one token."""
    return _blocks(sizes, 8, 256 if sizes.n <= 4 else 128)


def gradient_blocks(sizes: Sizes) -> tuple[Blocks, int]:
    """Of the gradient of one stream's weight, and the tokens of each share that gets sums of its own."""
    small = sizes.n <= 4
    blocks = _blocks(sizes, 32 if small else 16, 64 if small else 32)
    return blocks, _share(sizes, blocks, sizes.n * triton.cdiv(sizes.width, blocks.channels))


def write_read_backward_blocks(sizes: Sizes, hc: bool) -> tuple[Blocks, int]:
    """Of all streams' gradient: a thread holds one token's maps; and the tokens of each share.

    HC's of eight streams in fp32 would spill 56 bytes with 32 tokens.
    """
    blocks = Blocks(16 if hc and sizes.n > 4 else 32, channels(sizes.width, 64), 8)
    return blocks, _share(sizes, blocks, triton.cdiv(sizes.width, blocks.channels))


def _share(sizes: Sizes, blocks: Blocks, columns: int) -> int:
    """Tokens, in whole blocks, with which `columns` programs side by side make PROGRAMS programs."""
    shares = max(1, min(PROGRAMS // columns, -(-sizes.tokens // blocks.tokens)))
    return blocks.tokens * max(1, -(-sizes.tokens // (shares * blocks.tokens)))

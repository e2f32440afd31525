"""The I/O model against the figures that the paper and others print."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from mhc_bench.bench.traffic import (
    DIRECTIONS,
    LEVELS,
    OPERATIONS,
    Pass,
    Traffic,
    kept_units,
    kernel_traffic,
    operation_traffic,
    plain_traffic,
    sublayer_traffic,
)

WIDTH = 1000


def elements(traffic: Traffic) -> int:
    return traffic.bytes(1, WIDTH, 1, map_itemsize=1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
def test_the_unfused_forward_pass_is_the_papers_table(n: int) -> None:
    """Table 2 of arXiv 2512.24880: its totals of elements read and written."""
    reads, writes = (5 * n + 1) * WIDTH + n * n + 2 * n, (3 * n + 1) * WIDTH + n * n + 2 * n
    assert elements(sublayer_traffic(n, "forward", "unfused")) == reads + writes


def test_at_four_streams_the_paper_moves_34_fused_18_and_a_plain_residual_3() -> None:
    forward = [sublayer_traffic(4, "forward", level).units for level in LEVELS]
    assert forward == [34, 18, 14, 10]
    assert plain_traffic().units == 3


def test_at_four_streams_a_site_of_separate_kernels_moves_49() -> None:
    """Projection 4, aggregate 5, post 9; backward post 14, aggregate 9, projection 8."""
    parts = [
        operation_traffic(operation, 4, direction).units
        for direction in DIRECTIONS
        for operation in ("project", "aggregate", "write")
    ]
    assert parts == [4, 5, 9, 8, 9, 14]
    assert [sublayer_traffic(4, d, "fused").units for d in DIRECTIONS] == [18, 31]


def test_one_backward_pass_for_the_streams_gradient_moves_23_instead_of_31() -> None:
    assert sublayer_traffic(4, "backward", "fused").units == 31
    assert sublayer_traffic(4, "backward", "joined").units == 10 + 13


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("hc", [False, True], ids=["mhc", "hc"])
def test_the_triton_kernels_take_the_streams_that_the_model_counts(n: int, hc: bool) -> None:
    """Streams and hidden states among all launches' operands, on the meta device: nothing is computed."""
    forward, backward = two_sublayers_units(n, hc)
    assert forward == kernel_traffic(n, 2, "forward").units
    assert backward == kernel_traffic(n, 2, "backward").units
    if n == 4:
        # a write with the next read, 24 backward; a read by itself has 18 and a write 14
        assert (forward, backward) == (32, 24 + 18 + 14)
        assert [kernel_traffic(4, 12, each).units for each in DIRECTIONS] == [32 + 10 * 14, 56 + 10 * 24]


def two_sublayers_units(n: int, hc: bool) -> tuple[int, int]:
    """Of a read, a write with the next read, and a write; forward and backward."""
    from mhc_bench.ops.kernels import operators, reads, writes

    tokens, width, counted = 48, 640, [0, 0]

    def make(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta")

    def launch(kernel: Any, grid: object, arguments: tuple[Any, ...], **_: object) -> None:
        shapes = [each.shape for each in arguments if isinstance(each, torch.Tensor)]
        units = sum(s[1:-1].numel() for s in shapes if s[0] == tokens and s[-1] == width)
        counted["backward" in kernel.__name__ or "gradient" in kernel.__name__] += units

    run = {name: each._init_fn for name, each in vars(operators).items() if hasattr(each, "_init_fn")}
    stream, update = make(tokens, n, width), make(tokens, width)
    weight = make(2 + n, width) if hc else make(n * (2 + n), n * width)
    projection = weight, make(2 + n, n), make(2 if hc else 3)
    with mock.patch.object(reads, "launch", launch), mock.patch.object(writes, "launch", launch):
        pre, post, res, *kept = run["coefficients"](stream, *projection, 20, 1e-6, hc)
        run["aggregate"](stream, pre)
        run["write_read"](stream, update, post, res, *projection, 20, 1e-6, hc)
        run["write"](stream, update, post, res)
        grads = stream, update, pre, post, res
        run["write_backward"](stream, update, post, res, stream)
        run["write_read_backward"](stream, update, post, res, *projection, stream, pre, *kept, *grads, 20, hc)
        run["read_backward"](stream, *grads, pre, *kept, *projection, 20, hc)
    return counted[0], counted[1]


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_each_level_moves_less_than_the_one_before(n: int) -> None:
    for direction in DIRECTIONS:
        units = [sublayer_traffic(n, direction, level).units for level in LEVELS]
        assert units == sorted(units, reverse=True) and len(set(units)) == len(units)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_operation_by_itself_moves_no_more_than_its_parts(n: int) -> None:
    def units(operation: str, direction: Pass) -> int:
        return operation_traffic(operation, n, direction).units

    for direction in DIRECTIONS:
        assert units("read", direction) < units("project", direction) + units("aggregate", direction)
        assert units("write_read", direction) < units("write", direction) + units("read", direction)
        assert units("site", direction) <= units("write", direction) + units("read", direction)
    assert all(operation_traffic(each, n, "forward").read >= n for each in OPERATIONS)


def test_bytes_follow_from_tokens_width_and_the_size_of_an_element() -> None:
    assert Traffic(2, 1, 5).bytes(tokens=10, width=8, itemsize=2) == 10 * (3 * 8 * 2 + 5 * 4)


def test_kept_units_are_the_papers_table_of_recomputation() -> None:
    """n = 4, L = 60: 420 without recomputation, 76 + 60 less the transient 36 with blocks of 6."""
    assert kept_units(4, 60, "none") == 420
    assert kept_units(4, 60, "block", 6) == 136 - (4 + 2) * 6
    assert kept_units(4, 60, "block", 7) == 4 * 9 + 60
    assert kept_units(4, 60, "layer") == 120
    assert kept_units(1, 60, "none") == 120

"""Hidden states in the slots of a stream."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_bench.residual.slots import copies, first_slot, slot, unchanged, weighted_sum


@pytest.fixture
def hidden() -> Tensor:
    """[B, T, C], its memory in another order."""
    return torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0)).transpose(0, 2)


def test_copies_lie_side_by_side_whatever_the_order_of_the_memory(hidden: Tensor) -> None:
    stream = copies(hidden, 4)
    assert stream.shape == (2, 5, 4, 3) and stream.is_contiguous()
    assert all(torch.equal(stream[:, :, place], hidden) for place in range(4))


def test_results_are_tensors_of_their_own(hidden: Tensor) -> None:
    for result in (copies(hidden, 1), slot(copies(hidden, 2), 1), first_slot(hidden), unchanged(hidden)):
        assert not result._is_view()


def test_a_weighted_sum_takes_weights_for_each_token_or_for_all(hidden: Tensor) -> None:
    stream = torch.stack([hidden, 2 * hidden], -2)
    assert torch.allclose(weighted_sum(stream, torch.tensor([1.0, -3.0])), -5 * hidden)
    by_token = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(1))
    expected = (by_token[..., 0] + 2 * by_token[..., 1]).unsqueeze(-1) * hidden
    assert torch.allclose(weighted_sum(stream, by_token), expected)


def test_a_weighted_sum_is_made_in_fp32_and_has_the_dtype_of_the_stream() -> None:
    stream = torch.tensor([[256.0], [-256.0]], dtype=torch.bfloat16)
    summed = weighted_sum(stream, torch.tensor([1.0 + 2.0**-9, 1.0]))  # 1 in bf16, and the sum 0
    assert summed.dtype == torch.bfloat16 and summed.item() == 0.5

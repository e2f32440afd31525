"""What variants of this package do beyond the conformance kit: their starts, refusals and backward passes."""

from __future__ import annotations

import pytest
import torch
from residual_toys import WIDTH, connection, fixed_sublayer, hidden

from mhc_bench.errors import UsageError
from mhc_bench.residual import build, variant_names

EVERY = pytest.mark.parametrize("name", variant_names())
HAND_WRITTEN = ("baseline", "hc", "mhc")
"""Their backward passes are their own, and leave autocast by themselves."""


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_gradients_computed_under_autocast_equal_those_without(name: str) -> None:
    """Composed operations need the backward pass outside autocast, as torch asks."""

    def gradient(autocast: bool) -> torch.Tensor:
        each, start = connection(name).float(), hidden(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            stream = each.expand(start)
            read, carry = each.read(stream)
            each.collapse(each.write(stream, read, carry)).square().sum().backward()
        assert start.grad is not None
        return start.grad

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-5, atol=1e-5)


@EVERY
def test_a_plain_start_reads_the_embedding_and_adds_updates_with_positive_weight(name: str) -> None:
    """At the start a sublayer sees a multiple of the embedding, and its output enters the result."""
    each, start = build(name, width=WIDTH, depth=4, index=0).double(), hidden()
    stream = each.expand(start)
    read, carry = each.read(stream)
    ratio = read / start
    torch.testing.assert_close(ratio, ratio.mean(-1, keepdim=True).expand_as(ratio))
    assert ratio.min() > 0
    update = fixed_sublayer(0, start)
    written = (each.write(stream, added, carry) for added in (update, torch.zeros_like(update)))
    after, without = map(each.collapse, written)
    gain = (after - without) / update
    assert gain.min() > 0


@EVERY
def test_a_place_outside_the_model_is_refused(name: str) -> None:
    for width, depth, index in ((0, 4, 0), (8, 4, 4), (8, 4, -1)):
        with pytest.raises(UsageError, match="expected"):
            build(name, width=width, depth=depth, index=index)

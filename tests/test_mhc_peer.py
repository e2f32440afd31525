"""mHC, by every implementation, against what transformers has for DeepSeek-V4."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from interpreted import wherever
from residual_toys import WIDTH, connection

from mhc_bench.ops.choice import IMPLEMENTATIONS, operations_named

pytest.importorskip("transformers.models.deepseek_v4")

N = 4


def peer_of(ours: Any, epsilon: float) -> torch.nn.Module:
    """Its module with our parameters: it stores the n x n block as [in, out]."""
    from transformers import DeepseekV4Config
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection

    config = DeepseekV4Config(
        hidden_size=WIDTH, hc_mult=N, hc_sinkhorn_iters=20, hc_eps=epsilon, rms_norm_eps=1e-6
    )
    peer = DeepseekV4HyperConnection(config)
    own = {name: value.detach() for name, value in ours.named_parameters()}
    with torch.no_grad():
        peer.fn.copy_(joined("phi", own))
        peer.base.copy_(joined("bias", own))
        peer.scale.copy_(joined("alpha", own))
    return peer


def joined(kind: str, own: Any) -> torch.Tensor:
    """Our three tensors of one kind as its one."""
    pre, post, res = (own[f"{kind}_{which}"] for which in ("pre", "post", "res"))
    if kind != "alpha":
        res = res.view(N, N, *res.shape[1:]).transpose(0, 1).reshape(res.shape)
    return torch.cat([pre, post, res])


def results(name: str, epsilon: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ours and the peer's hidden, stream and gradients, by the operations called `name`."""
    ours = connection("mhc", additive_epsilon=epsilon).float()
    ours.use_operations(operations_named(name))
    peer = peer_of(ours, epsilon)
    stream = torch.randn(2, 3, N, WIDTH, generator=torch.Generator().manual_seed(3))
    mine, theirs = stream.clone().requires_grad_(), stream.clone().requires_grad_()
    read, carry = ours.read(mine)
    written = ours.write(mine, torch.tanh(read), carry)
    post, comb, collapsed = peer(theirs)
    peer_written = post.unsqueeze(-1) * torch.tanh(collapsed).unsqueeze(-2) + comb.transpose(-1, -2) @ theirs
    weight = torch.randn(written.shape, generator=torch.Generator().manual_seed(4))
    (written * weight).sum().backward()
    (peer_written * weight).sum().backward()
    assert mine.grad is not None and theirs.grad is not None
    pairs = [(read, collapsed), (written, peer_written), (mine.grad, theirs.grad)]
    for given, kind in (("fn", "phi"), ("base", "bias"), ("scale", "alpha")):
        of_peer = peer.get_parameter(given).grad
        assert of_peer is not None
        pairs.append((joined(kind, {name: each.grad for name, each in ours.named_parameters()}), of_peer))
    return [(one.detach(), other.detach()) for one, other in pairs]


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_equals_the_peer_without_and_with_its_epsilon(name: str) -> None:
    """With one it adds 1e-6 to H_pre and to every sum, twenty times over."""
    for mine, other in wherever(name, lambda: [*results(name, 0.0), *results(name, 1e-6)]):
        torch.testing.assert_close(mine, other, rtol=2e-5, atol=2e-5)

"""Hyper-Connections, by every implementation, against the `hyper-connections` package (extra `peers`)."""

from __future__ import annotations

import pytest
import torch
from interpreted import wherever
from residual_toys import WIDTH, connection

from mhc_bench.ops.choice import IMPLEMENTATIONS, operations_named

peers = pytest.importorskip("hyper_connections.hyper_connections")


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_values_and_gradients_equal_the_peers(name: str) -> None:
    for mine, other in wherever(name, lambda: [pair for n in (2, 4) for pair in results(name, n)]):
        rounding = (
            {"rtol": 1e-9, "atol": 1e-11} if mine.dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
        )
        torch.testing.assert_close(mine, other, **rounding)


def results(name: str, n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ours and the peer's, whose norm has a gain and no epsilon to speak of: it goes into our weights."""
    ours = connection("hc", streams=n, epsilon=1e-30)
    ours.use_operations(operations_named(name))
    if name not in ("reference", "eager"):
        ours = ours.float()  # Triton has no fp64, and `compiled` is built for each dtype
    dtype = ours.weight.dtype
    peer = peers.HyperConnections(n, dim=WIDTH, layer_index=1).to(dtype)
    gain = 1 + 0.3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.no_grad():
        own = dict(ours.named_parameters())
        peer.norm.gamma.copy_(gain - 1)
        peer.static_alpha.copy_(torch.cat([own["static_pre"][:, None], own["static_res"].T], dim=1))
        peer.static_beta.copy_(own["static_post"])
        peer.dynamic_alpha_fn.copy_((own["weight"][[0, *range(2, 2 + n)]] / gain).T)
        peer.dynamic_beta_fn.copy_(own["weight"][1] / gain)
        peer.dynamic_alpha_scale.copy_(own["scale_mix"][0])
        peer.dynamic_beta_scale.copy_(own["scale_write"][0])
    stream = torch.randn(2, 3, n, WIDTH, generator=torch.Generator().manual_seed(3)).to(dtype)
    mine, theirs = stream.clone().requires_grad_(), stream.clone().requires_grad_()

    read, carry = ours.read(mine)
    written = ours.write(mine, torch.tanh(read), carry)
    folded = theirs.permute(0, 2, 1, 3).reshape(2 * n, 3, WIDTH)
    peer_read, mixed, kept = peer.width_connection(folded)
    peer_written = peer.depth_connection(torch.tanh(peer_read), mixed, **kept)
    peer_written = peer_written.view(2, n, 3, WIDTH).permute(0, 2, 1, 3)

    weight = torch.randn(written.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    (written * weight).sum().backward()
    (peer_written * weight).sum().backward()
    pairs = [
        (read, peer_read),
        (written, peer_written),
        (mine.grad, theirs.grad),
        (ours.weight.grad[1] * gain, peer.dynamic_beta_fn.grad),
        (ours.scale_mix.grad[0], peer.dynamic_alpha_scale.grad),
        (ours.static_res.grad.T, peer.static_alpha.grad[:, 1:]),
    ]
    return [(one.detach(), other.detach()) for one, other in pairs]

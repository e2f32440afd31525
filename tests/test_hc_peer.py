"""Hyper-Connections against the `hyper-connections` package (extra `peers`)."""

from __future__ import annotations

import pytest
import torch
from residual_toys import WIDTH, connection

peers = pytest.importorskip("hyper_connections.hyper_connections")


@pytest.mark.parametrize("n", [2, 4])
def test_values_and_gradients_equal_the_peers(n: int) -> None:
    """Its norm has a gain and no epsilon to speak of: ours gets the gain in its weights and 1e-30."""
    ours = connection("hc", streams=n, epsilon=1e-30)
    peer = peers.HyperConnections(n, dim=WIDTH, layer_index=1).double()
    gain = 1 + 0.3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        own = dict(ours.named_parameters())
        peer.norm.gamma.copy_(gain - 1)
        peer.static_alpha.copy_(torch.cat([own["static_pre"][:, None], own["static_res"].T], dim=1))
        peer.static_beta.copy_(own["static_post"])
        peer.dynamic_alpha_fn.copy_((own["weight"][[0, *range(2, 2 + n)]] / gain).T)
        peer.dynamic_beta_fn.copy_(own["weight"][1] / gain)
        peer.dynamic_alpha_scale.copy_(own["scale_mix"][0])
        peer.dynamic_beta_scale.copy_(own["scale_write"][0])
    stream = torch.randn(2, 3, n, WIDTH, generator=torch.Generator().manual_seed(3)).double()
    mine, theirs = stream.clone().requires_grad_(), stream.clone().requires_grad_()

    read, carry = ours.read(mine)
    written = ours.write(mine, torch.tanh(read), carry)
    folded = theirs.permute(0, 2, 1, 3).reshape(2 * n, 3, WIDTH)
    peer_read, mixed, kept = peer.width_connection(folded)
    peer_written = peer.depth_connection(torch.tanh(peer_read), mixed, **kept)
    peer_written = peer_written.view(2, n, 3, WIDTH).permute(0, 2, 1, 3)

    torch.testing.assert_close(read, peer_read, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(written, peer_written, rtol=1e-10, atol=1e-12)
    weight = torch.randn(written.shape, generator=torch.Generator().manual_seed(4)).double()
    (written * weight).sum().backward()
    (peer_written * weight).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.weight.grad[1] * gain, peer.dynamic_beta_fn.grad)
    torch.testing.assert_close(ours.scale_mix.grad[0], peer.dynamic_alpha_scale.grad)
    torch.testing.assert_close(ours.static_res.grad.T, peer.static_alpha.grad[:, 1:])

"""Frac-Connections against the `hyper-connections` package (extra `peers`), as far as the two mean the same.

What a sublayer reads and how the fractions mix is compared. Not the write: the package adds every fraction
of the sublayer's output to every fraction of the state, where the paper's B weighs each fraction by itself.
Its norm is an RMS norm, ours the paper's LayerNorm: the same on fractions of mean 0. It holds Y and A
interleaved.
"""

from __future__ import annotations

import pytest
import torch
from residual_toys import WIDTH, connection

peers = pytest.importorskip("hyper_connections.hyper_connections")


@pytest.mark.parametrize("m", [2, 3, 4])
def test_what_is_read_and_how_fractions_mix_equal_the_peers(m: int) -> None:
    ours = connection("frac", fractions=m, epsilon=1e-30)
    peer = peers.HyperConnections(1, dim=WIDTH, layer_index=0, num_fracs=m).double()
    gain = 1 + 0.3 * torch.randn(WIDTH // m, generator=torch.Generator().manual_seed(2)).double()
    own = dict(ours.named_parameters())
    with torch.no_grad():
        peer.norm.gamma.copy_(gain - 1)
        for place, (kind, start) in enumerate((("static_read", 0), ("static_res", m))):
            peer.static_alpha[:, place::2] = own[kind].T  # [in, out]
            peer.dynamic_alpha_fn[:, place::2] = (own["weight"][start : start + m] / gain).T
        peer.dynamic_alpha_scale.copy_(own["scale_mix"][0])
    stream = torch.randn(2, 3, m, WIDTH // m, generator=torch.Generator().manual_seed(3)).double()
    stream = (stream - stream.mean(-1, keepdim=True)).flatten(-2)

    read, carry = ours.read(stream)
    mixed = ours.write(stream, torch.zeros_like(stream), carry)
    peer_read, peer_mixed, _ = peer.width_connection(stream)
    torch.testing.assert_close(read, peer_read, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mixed, peer_mixed, rtol=1e-10, atol=1e-12)

    weight = torch.randn(read.shape, generator=torch.Generator().manual_seed(4)).double()
    (read * weight + mixed * weight.flip(-1)).sum().backward()
    (peer_read * weight + peer_mixed * weight.flip(-1)).sum().backward()
    torch.testing.assert_close(ours.scale_mix.grad[0], peer.dynamic_alpha_scale.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        ours.static_read.grad.T, peer.static_alpha.grad[:, 0::2], rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(ours.static_res.grad.T, peer.static_alpha.grad[:, 1::2], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        ours.weight.grad[m : 2 * m].T * gain[:, None],
        peer.dynamic_alpha_fn.grad[:, 1::2],
        rtol=1e-9,
        atol=1e-11,
    )

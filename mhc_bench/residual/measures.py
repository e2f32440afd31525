"""Measures of mixing matrices and streams.

Gains are those of arXiv 2512.24880: the size of a sum of entries, not a sum of sizes.
Shape legend: L sublayers, N tokens, n streams, C width. Matrices are [..., out, in]; products want float64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward_gain(matrix: Tensor) -> Tensor:
    """Largest |row sum| of [..., n, n]: how much a signal equal in all streams can grow going up."""
    return matrix.sum(-1).abs().amax(-1)


def backward_gain(matrix: Tensor) -> Tensor:
    """Largest |column sum| of [..., n, n]: the same for a gradient going down."""
    return matrix.sum(-2).abs().amax(-1)


def prefix_row_sums(matrices: Tensor) -> Tensor:
    """[L, N, n]: at l, the row sums of the product of sublayers 0..l of matrices [L, N, n, n].

    Once one of a token's sums has overflowed, all later ones of that token are inf.
    """
    sums, found = torch.ones_like(matrices[0, ..., 0]), []
    for matrix in matrices:
        overflowed = sums.isinf().any(-1, keepdim=True)  # inf * 0 would make them NaN
        sums = (matrix @ sums.unsqueeze(-1)).squeeze(-1).masked_fill(overflowed, torch.inf)
        found.append(sums)
    return torch.stack(found)


def suffix_column_sums(matrices: Tensor) -> Tensor:
    """[L, N, n]: at l, the column sums of the product of sublayers l..L-1; at 0, of the whole product."""
    return prefix_row_sums(matrices.transpose(-1, -2).flip(0)).flip(0)


def stream_cosine(streams: Tensor) -> Tensor:
    """[...]: the mean cosine over pairs of different streams of [..., n, C]; 1 for copies. NaN at n = 1."""
    n = streams.shape[-2]
    unit = torch.nn.functional.normalize(streams, dim=-1, eps=torch.finfo(streams.dtype).tiny)
    gram = unit @ unit.transpose(-1, -2)
    off_diagonal = gram.sum((-2, -1)) - gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return off_diagonal / (n * (n - 1)) if n > 1 else torch.full_like(off_diagonal, torch.nan)


def effective_rank(streams: Tensor) -> Tensor:
    """[...]: exp of the entropy of the normalised singular values of [..., n, C], from 1 (copies) to n."""
    singular = torch.linalg.svdvals(streams)
    share = singular / singular.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(share).sum(-1)
    return entropy.exp()

"""Doubly stochastic matrices without iterations: weighted means of permutation matrices.

mHC-lite takes all permutations of the n streams; KromHC a Kronecker product of small such means.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from mhc_bench.errors import UsageError
from mhc_bench.ops.precision import shaped
from mhc_bench.residual.options import number_of
from mhc_bench.residual.projected import ProjectedConnection, one_against_others, square
from mhc_bench.residual.registry import register_variant

LARGEST = 6
"""Streams (or of a factor) whose permutations are still weighed one by one: 720."""


def mean_permutation(logits: Tensor, n: int) -> Tensor:
    """Sum over k of softmax(logits [..., n!])_k P_k: [..., n, n] as [out, in].

    The permutations come in lexicographic order, the identity first; row i of P_k reads stream perm_k[i].
    """
    orders = torch.tensor(list(itertools.permutations(range(n))), device=logits.device)
    matrices = torch.nn.functional.one_hot(orders, n).to(logits.dtype)
    return square(torch.softmax(logits, -1) @ matrices.flatten(1), n)


def kronecker(left: Tensor, right: Tensor) -> Tensor:
    """[..., a, b] and [..., c, d] to [..., a*c, b*d]."""
    product = left[..., :, None, :, None] * right[..., None, :, None, :]
    n = left.shape[-1] * right.shape[-1]
    return shaped(product, *product.shape[:-4], n, n)


class PermutationConnection(ProjectedConnection):
    """What both variants share: exact row and column sums, and the start of their papers' code.

    That start: phi 0; H_pre and H_post with logit +1 at stream k mod n and -1 elsewhere; in each softmax
    `identity_margin` between the identity and every other permutation.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int,
        factors: tuple[int, ...],
        alpha: float,
        identity_margin: float,
        epsilon: float,
    ) -> None:
        number_of("streams", streams)
        if not 0 <= identity_margin <= 100:
            raise UsageError(f"identity_margin {identity_margin}: expected 0 to 100")
        if any(factor > LARGEST for factor in factors):
            raise UsageError(
                f"streams {streams}: expected no factor over {LARGEST}, every permutation has a weight"
            )
        self.factors, self.identity_margin = factors, identity_margin
        super().__init__(
            width=width,
            depth=depth,
            index=index,
            streams=streams,
            logits=sum(map(math.factorial, factors)),
            contrast=1.0,
            alpha=alpha,
            epsilon=epsilon,
        )
        self.reset_parameters()

    def inert_parameters(self) -> frozenset[str]:
        """H_res's in the first sublayer (copies: rows sum to 1), the last (a sum: columns do), at n = 1."""
        hidden = self.index in (0, self.depth - 1) or self.streams == 1
        return self.mixing_parameters() if hidden else frozenset()

    def initial_projection(self, rows: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(rows, self.streams * self.width, device="cpu")

    def initial_bias(self, which: str) -> Tensor:
        if which == "res":
            return self.initial_mixing()
        return one_against_others(self.streams, self.index % self.streams, self.contrast)

    def initial_mixing(self) -> Tensor:
        starts = [torch.full((math.factorial(f),), -self.identity_margin, device="cpu") for f in self.factors]
        for start in starts:
            start[0] = 0.0
        return torch.cat(starts)


@register_variant("mhc-lite")
class LiteHyperConnection(PermutationConnection):
    """mHC-lite, arXiv 2601.05732: H_res = sum over k of a_k P_k, a = softmax(alpha v phi^T + bias).

    P_k are all n! permutation matrices (24 at n = 4), so H_res is doubly stochastic exactly and every such
    matrix can be had (Birkhoff). v, H_pre and H_post are mHC's. (n! + 2n) (n*C + 1) + 3 parameters per
    sublayer. Formula and start are those of the authors' code; the paper itself was not read.

    With phi at 0 the gates have no gradient until the first optimizer step; after that they do.

    Args:
        streams: n, up to 6.
        alpha: start value of the three gates.
        identity_margin: the start's logit of the identity above every other permutation. 8, as in the
            authors' code, gives the identity a weight of 0.992 at n = 4 and leaves the others little slope.
        epsilon: of the RMS norm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        alpha: float = 0.01,
        identity_margin: float = 8.0,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(
            width=width,
            depth=depth,
            index=index,
            streams=streams,
            factors=(streams,),
            alpha=alpha,
            identity_margin=identity_margin,
            epsilon=epsilon,
        )

    def mixing(self, logits: Tensor) -> Tensor:
        return mean_permutation(logits, self.streams)


@register_variant("kromhc")
class KroneckerHyperConnection(PermutationConnection):
    """KromHC, arXiv 2601.21579: H_res = U^1 (x) ... (x) U^K, each U^k a weighted mean of permutations.

    U^k = sum over m of a^k_m P_m with a^k = softmax(alpha v phi^k + bias^k) over the i_k! permutations of
    i_k, n = i_1 ... i_K. All factors share one alpha, which the paper found better than one each. v, H_pre
    and H_post are mHC's. (sum of i_k! + 2n) (n*C + 1) + 3 parameters per sublayer: 12 rows at n = 4, where
    each factor is [[p, 1-p], [1-p, p]] and H_res symmetric. Formula and start are those of the
    authors' code; the paper itself was not read. Chosen here: the factors are n's primes in rising order
    (the code takes powers of two alone).

    With phi at 0 the gates have no gradient until the first optimizer step; after that they do.

    Args:
        streams: n, without a prime factor over 5.
        alpha: start value of the three gates.
        identity_margin: the start's logit of the identity above every other permutation, in each factor; 8
            as in the authors' code.
        epsilon: of the RMS norm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int = 4,
        alpha: float = 0.01,
        identity_margin: float = 8.0,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(
            width=width,
            depth=depth,
            index=index,
            streams=streams,
            factors=prime_factors(number_of("streams", streams)),
            alpha=alpha,
            identity_margin=identity_margin,
            epsilon=epsilon,
        )

    def mixing(self, logits: Tensor) -> Tensor:
        product = logits.new_ones(*logits.shape[:-1], 1, 1)
        parts = torch.split(logits, [math.factorial(factor) for factor in self.factors], dim=-1)
        for factor, part in zip(self.factors, parts, strict=True):
            product = kronecker(product, mean_permutation(part, factor))
        return product


def prime_factors(n: int) -> tuple[int, ...]:
    """The primes whose product is n, a small number, in rising order; none for 1 and below."""
    for prime in range(2, n + 1):
        if n % prime == 0:
            return (prime, *prime_factors(n // prime))
    return ()

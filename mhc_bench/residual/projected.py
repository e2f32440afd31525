"""mHC and its relatives: one projection of all of a token's streams gives the logits of its maps."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from mhc_bench.ops.precision import shaped, without_autocast
from mhc_bench.ops.types import Coefficients, ProjectedCoefficients, Triple
from mhc_bench.residual.options import within
from mhc_bench.residual.widened import WidenedConnection


class ProjectedConnection(WidenedConnection):
    """Maps from h = alpha (v phi^T) + bias, with v = vec(x) / rms(vec(x)) over all n*C entries.

    H_pre = sigmoid(h_pre) and H_post = 2 sigmoid(h_post), as in mHC (arXiv 2512.24880 Eq. 7-8); subclasses
    say what H_res makes of h_res, and where it starts. phi absorbs the norm's gain. Unless a subclass says
    otherwise, phi, H_pre and H_post start as mHC's do under `near_identity`, so that a relative differs from
    mHC in H_res alone.

    Args:
        streams: n.
        logits: K, the entries of h_res; with 0 there are no parameters for H_res.
        contrast: logits of the start: this far above the centre at stream k mod n, and below it elsewhere.
        alpha: start value of the gates.
        epsilon: of the RMS norm.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        index: int,
        streams: int,
        logits: int,
        contrast: float,
        alpha: float,
        epsilon: float,
    ) -> None:
        super().__init__(width=width, depth=depth, index=index, streams=streams)
        self.epsilon = within("epsilon", epsilon, 0.0, 1e-2)
        self.initial_alpha = within("alpha", alpha, 0.0, 10.0)
        self.contrast = contrast
        n = self.streams
        self.sizes = {"pre": n, "post": n} | ({"res": logits} if logits else {})
        for kind, shape in (("phi", (n * width,)), ("bias", ())):
            for which, rows in self.sizes.items():
                self.register_parameter(f"{kind}_{which}", empty(rows, *shape))
        for which in self.sizes:
            self.register_parameter(f"alpha_{which}", empty(1))

    @abstractmethod
    def mixing(self, logits: Tensor) -> Tensor:
        """H_res [..., n, n] as [out, in] from h_res [..., K]."""

    @abstractmethod
    def initial_mixing(self) -> Tensor:
        """The start value [K] of H_res's bias, on the CPU."""

    def initial_bias(self, which: str) -> Tensor:
        """The start value of the bias of `pre`, `post` [n] or `res` [K], on the CPU."""
        n, own = self.streams, self.index % self.streams
        match which:
            case "pre":
                return one_against_others(n, own, self.contrast)
            case "post":
                return balanced_writes(n, own, self.contrast)
        return self.initial_mixing()

    def initial_projection(self, rows: int, generator: torch.Generator) -> Tensor:
        """The start value [rows, n*C] of a phi: v phi^T has unit variance, alpha alone sets its weight."""
        wide = self.streams * self.width
        return torch.randn(rows, wide, generator=generator, device="cpu") / math.sqrt(wide)

    def coefficients(self) -> Coefficients:
        return ProjectedCoefficients(torch.cat(self.own("phi")), self.epsilon, self.activate)

    def activate(self, projection: Tensor) -> Triple:
        """The maps of v phi^T [..., 2n + K]."""
        with without_autocast(projection):
            pre, post, *res = self.logits(projection)
            mixed = self.mixing(res[0] if res else projection[..., :0])
            return torch.sigmoid(pre), 2 * torch.sigmoid(post), mixed

    def logits(self, projection: Tensor) -> list[Tensor]:
        """h_pre, h_post [..., n] and, where there is one, h_res [..., K] of v phi^T [..., 2n + K]."""
        parts = torch.split(projection, list(self.sizes.values()), dim=-1)
        scaled = zip(self.own("alpha"), parts, self.own("bias"), strict=True)
        return [alpha * part + bias for alpha, part, bias in scaled]

    def own(self, kind: str) -> tuple[Tensor, ...]:
        """The parameters of one kind (phi, bias, alpha) of every map, in the order pre, post, res."""
        return tuple(getattr(self, f"{kind}_{which}") for which in self.sizes)

    def mixing_parameters(self) -> frozenset[str]:
        """H_res's own parameters."""
        return frozenset(f"{kind}_res" for kind in ("phi", "bias", "alpha") if "res" in self.sizes)

    def decayed_parameters(self) -> frozenset[str]:
        """The projections; biases and gates never decay."""
        return frozenset(f"phi_{which}" for which in self.sizes)

    def gate_parameters(self) -> frozenset[str]:
        return frozenset(f"alpha_{which}" for which in self.sizes)

    def initial_value(self, name: str, generator: torch.Generator) -> Tensor:
        kind, _, which = name.partition("_")
        if which in self.sizes:
            match kind:
                case "phi":
                    return self.initial_projection(self.sizes[which], generator)
                case "bias":
                    return self.initial_bias(which)
                case "alpha":
                    return torch.full((1,), self.initial_alpha, device="cpu")
        return super().initial_value(name, generator)


def square(entries: Tensor, n: int) -> Tensor:
    """[..., n*n] to [..., n, n], row by row."""
    return shaped(entries, *entries.shape[:-1], n, n)


def empty(*shape: int) -> nn.Parameter:
    """A parameter to be filled; fp32 even in a model of lower precision."""
    return nn.Parameter(torch.empty(shape, dtype=torch.float32))


def one_against_others(n: int, own: int, logit: float) -> Tensor:
    """[n] logits: `logit` at stream `own`, -`logit` at every other."""
    return logit * (2 * torch.eye(n, device="cpu")[own] - 1)


def balanced_writes(n: int, own: int, logit: float) -> Tensor:
    """[n] logits: `logit` at stream `own`, and elsewhere what makes 2 sigmoid have mean exactly 1."""
    mine = torch.eye(n, device="cpu")[own]
    return torch.where(mine > 0, logit, _balancing_logit(n, logit)) if n > 1 else 0 * mine


def near_identity(n: int, contrast: float) -> Tensor:
    """[n, n] logits: `contrast` on the diagonal, -`contrast` off it."""
    return contrast * (2 * torch.eye(n, device="cpu") - 1)


def _balancing_logit(n: int, logit: float) -> float:
    share = (n - 2 / (1 + math.exp(-logit))) / (n - 1) / 2
    return math.log(share / (1 - share))

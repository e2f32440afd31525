"""Other people's implementations of the same operations and one after Liger's, behind adapters to our layout.

Conventions differ: [in, out] for the n x n matrix, another order of Sinkhorn's steps, an epsilon in the sums,
a layout with the streams last. An adapter arranges parameters and operands beforehand, outside what is timed;
what a peer computes differently shows in the comparison of results before anything is timed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mhc_bench.bench import liger_style
from mhc_bench.bench.problems import EPSILON, ITERATIONS, Data, Operands, Problem, Results, Trial, leaf
from mhc_bench.ops.types import HcCoefficients, MhcCoefficients, Triple

Run = Callable[[Operands], Results]


@dataclass(frozen=True)
class Peer:
    """An implementation that is not the suite's, and what of ours it can be compared with."""

    module: str
    """What is imported."""
    package: str
    """What is installed."""
    variant: str
    operations: frozenset[str]
    trial: Callable[[Problem, Data], Trial]
    gpu: bool = True
    """Needs a GPU."""
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    streams: tuple[int, ...] = ()
    """Numbers of streams that it can do; empty for all."""

    def offers(self, problem: Problem) -> bool:
        """Whether the peer has such an operation at all."""
        return problem.operation in self.operations and problem.variant in ("", self.variant)

    def obstacle(self, problem: Problem) -> str:
        """Why the peer cannot be measured here; empty where it can."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.package} is not installed"
        if self.gpu and problem.device.type != "cuda":
            return "needs a GPU"
        if problem.dtype not in self.dtypes:
            return f"has no {str(problem.dtype).removeprefix('torch.')}"
        if self.streams and problem.streams not in self.streams:
            return f"has n = {', '.join(map(str, self.streams))} alone"
        return ""


def _mhc(data: Data) -> MhcCoefficients:
    found = data.coefficients["mhc"]
    assert isinstance(found, MhcCoefficients)
    return found


def _transposed_rows(phi: Tensor, bias: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The rows of H_res, [out, in], as [in, out]."""
    return phi.view(n, n, -1).transpose(0, 1).reshape(n * n, -1), bias.view(n, n).T.flatten()


def _joined(data: Data, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """phi [K, n*C], bias [K] and alpha [3] with H_res as [in, out]: DeepSeek's order."""
    coefficients = _mhc(data)
    phi_res, bias_res = _transposed_rows(coefficients.phi[2], coefficients.bias[2], n)
    phi = torch.cat([*coefficients.phi[:2], phi_res])
    return phi, torch.cat([*coefficients.bias[:2], bias_res]), torch.cat(coefficients.alpha)


def _swapped(name: str, tensor: Tensor) -> Tensor:
    """H_res as [in, out], and back."""
    return tensor.transpose(-1, -2) if name == "res" else tensor


def _read_operands(data: Data, problem: Problem, phi: Tensor, bias: Tensor, alpha: Tensor) -> dict[str, Any]:
    """Of `aggregate`, `read`, `write` and `site` in our layout but for H_res, which is [in, out]."""
    match problem.operation:
        case "aggregate":
            return {"stream": leaf(data.stream), "pre": leaf(data.pre)}
        case "write":
            maps = {"post": leaf(data.post), "res": leaf(data.res.transpose(-1, -2).contiguous())}
            return {"through": leaf(data.stream), "update": leaf(data.update), **maps}
    return {"stream": leaf(data.stream), "phi": leaf(phi), "bias": leaf(bias), "alpha": leaf(alpha)}


# transformers: DeepSeek-V4's module, eager


def _transformers(problem: Problem, data: Data) -> Trial:
    from transformers import DeepseekV4Config
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection

    n = problem.streams
    config = DeepseekV4Config(
        hidden_size=problem.width,
        hc_mult=n,
        hc_sinkhorn_iters=ITERATIONS,
        hc_eps=EPSILON,
        rms_norm_eps=EPSILON,
    )
    module = DeepseekV4HyperConnection(config).to(problem.device)
    phi, bias, alpha = _joined(data, n)
    with torch.no_grad():
        for parameter, value in ((module.fn, phi), (module.base, bias), (module.scale, alpha)):
            parameter.copy_(value)

    def run(given: Operands) -> Results:
        post, comb, hidden = module(given["stream"])
        hidden = hidden.to(problem.dtype)
        if problem.operation == "read":
            return {"hidden": hidden, "post": post, "res": comb}
        post, comb = post.to(problem.dtype), comb.to(problem.dtype)
        mixed = post.unsqueeze(-1) * hidden.unsqueeze(-2) + comb.transpose(-1, -2) @ given["stream"]
        return {"written": mixed}

    parameters = dict(module.named_parameters())
    return Trial({"stream": leaf(data.stream), **parameters}, run, _swapped, _swapped)


# Liger: Triton kernels; [out, in], Sinkhorn in the other order and with an epsilon


def _liger(problem: Problem, data: Data) -> Trial:
    from liger_kernel.transformers import functional as liger

    def coefficients(stream: Tensor, phi: Tensor, bias: Tensor, alpha: Tensor) -> Triple:
        found: Triple = liger.liger_mhc_coeffs(
            stream, phi, bias, *alpha.unbind(), allow_fp32=True, tmax=ITERATIONS, rms_eps=EPSILON
        )
        return found

    return _ligers_split(problem, data, coefficients, liger.liger_mhc_pre, liger.liger_mhc_post_res)


def _liger_style(problem: Problem, data: Data) -> Trial:
    """The same split in plain torch, ours."""
    coefficients = functools.partial(liger_style.coefficients, iterations=ITERATIONS, rms_epsilon=EPSILON)
    return _ligers_split(problem, data, coefficients, liger_style.aggregate, liger_style.write)


def _ligers_split(
    problem: Problem,
    data: Data,
    coefficients: Callable[[Tensor, Tensor, Tensor, Tensor], Triple],
    aggregate: Callable[[Tensor, Tensor], Tensor],
    write: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Trial:
    ours = _mhc(data)
    phi = torch.cat(ours.phi).T.contiguous()
    operands = _read_operands(data, problem, phi, torch.cat(ours.bias), torch.cat(ours.alpha))
    if "res" in operands:
        operands["res"] = leaf(data.res)

    def run(given: Operands) -> Results:
        if problem.operation == "aggregate":
            return {"hidden": aggregate(given["stream"], given["pre"])}
        if problem.operation == "write":
            return {"written": write(*_write_arguments(given))}
        stream = given["stream"]
        pre, post, res = coefficients(stream, given["phi"], given["bias"], given["alpha"])
        hidden = aggregate(stream, pre)
        if problem.operation == "read":
            return {"hidden": hidden, "post": post, "res": res}
        return {"written": write(stream, hidden, post, res)}

    return Trial(operands, run)


def _write_arguments(given: Operands) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return given["through"], given["update"], given["post"], given["res"]


# TileKernels: DeepSeek's TileLang kernels; [in, out], n = 4, bf16


def _tile_kernels(problem: Problem, data: Data) -> Trial:
    from tile_kernels.modeling.mhc import ops
    from tile_kernels.modeling.mhc.functional import mhc_pre

    n = problem.streams
    phi, bias, alpha = _joined(data, n)

    def read(given: Operands) -> Results:
        # with the gradients of read and write apart, which `mhc_pre` adds up through the stream's storage
        raw = ops.mhc_pre_norm_fn(given["stream"], given["phi"], None, EPSILON, fuse_grad_acc=False)
        pre, post, comb = ops.mhc_pre_split_mixes(raw, given["alpha"], given["bias"], n, 2.0, 0.0)
        comb = ops.sinkhorn_normalize(comb, repeat=ITERATIONS, eps=EPSILON)
        return {"hidden": ops.mhc_pre_apply_mix(given["stream"], pre), "post": post.squeeze(-1), "res": comb}

    def run(given: Operands) -> Results:
        if problem.operation == "aggregate":
            return {"hidden": ops.mhc_pre_apply_mix(given["stream"], given["pre"].unsqueeze(-1))}
        if problem.operation == "write":
            through, update, post, comb = _write_arguments(given)
            return {"written": ops.mhc_post(update, through, post.unsqueeze(-1), comb)}
        if problem.operation == "read":
            return read(given)
        hidden, (post, comb) = mhc_pre(
            given["stream"],
            given["phi"],
            given["alpha"],
            given["bias"],
            norm_eps=EPSILON,
            mhc_mult=n,
            post_mult_value=2.0,
            pre_eps=0.0,
            sinkhorn_eps=EPSILON,
            sinkhorn_repeat=ITERATIONS,
        )
        return {"written": ops.mhc_post(hidden, given["stream"], post, comb)}

    return Trial(_read_operands(data, problem, phi, bias, alpha), run, _swapped, _swapped)


# Transformer Engine: Triton kernels; streams last, [in, out], n = 4


def _transformer_engine(problem: Problem, data: Data) -> Trial:
    from transformer_engine.pytorch.triton import mhc

    n = problem.streams
    phi, bias, alpha = _joined(data, n)
    # its vec(x) runs over [C, n]
    phi = phi.view(-1, n, problem.width).transpose(1, 2).reshape(len(phi), -1)
    operands = _read_operands(data, problem, phi, bias.unsqueeze(0), alpha)
    for name in ("stream", "through"):
        if name in operands:
            operands[name] = leaf(_streams_last(name, operands[name]).contiguous())

    def run(given: Operands) -> Results:
        if problem.operation == "aggregate":
            return {"hidden": mhc.mhc_fused_aggregate(given["stream"], given["pre"], n)}
        if problem.operation == "write":
            through, update, post, res = _write_arguments(given)
            return {"written": mhc.mhc_fused_expand_combine(update, None, post, through, res)}
        stream = given["stream"]
        hidden, post, res = mhc.mhc_generate_mix_and_aggregate(
            stream, given["phi"], given["alpha"], given["bias"]
        )
        if problem.operation == "read":
            return {"hidden": hidden, "post": post, "res": res}
        return {"written": mhc.mhc_fused_expand_combine(hidden, None, post, stream, res)}

    return Trial(operands, run, _streams_last, _streams_last)


def _streams_last(name: str, tensor: Tensor) -> Tensor:
    """[..., n, C] as [..., C, n] and H_res as [in, out], and back."""
    return tensor.transpose(-1, -2) if name in ("stream", "through", "written", "res") else tensor


# lucidrains' hyper-connections: HC in eager torch; streams folded into the batch, [in, out]


def _lucidrains(problem: Problem, data: Data) -> Trial:
    from hyper_connections.hyper_connections import HyperConnections

    n, width = problem.streams, problem.width
    coefficients = data.coefficients["hc"]
    assert isinstance(coefficients, HcCoefficients)
    peer = HyperConnections(n, dim=width, layer_index=0).to(problem.device)
    pre, post, res = coefficients.static
    values = {
        "norm.gamma": torch.zeros(width),
        "static_alpha": torch.cat([pre[:, None], res.T], dim=1),
        "static_beta": post,
        "dynamic_alpha_fn": coefficients.weight[[0, *range(2, 2 + n)]].T,
        "dynamic_beta_fn": coefficients.weight[1],
        "dynamic_alpha_scale": coefficients.scale[0][0],
        "dynamic_beta_scale": coefficients.scale[1][0],
    }
    parameters = dict(peer.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)

    def run(given: Operands) -> Results:
        hidden, mixed, kept = peer.width_connection(given["stream"])
        return {"written": peer.depth_connection(hidden, mixed, **kept)}

    operands = {"stream": leaf(_folded("stream", data.stream).contiguous()), **parameters}
    return Trial(operands, run, _folded, _unfolded)


def _folded(name: str, tensor: Tensor) -> Tensor:
    """[1, N, n, C] as [n, N, C]."""
    return tensor[0].transpose(0, 1) if name in ("stream", "written") else tensor


def _unfolded(name: str, tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).unsqueeze(0) if name in ("stream", "written") else tensor


_KERNELS = frozenset({"aggregate", "read", "write", "site"})
PEERS: Mapping[str, Peer] = {
    "transformers": Peer(
        "transformers.models.deepseek_v4",
        "transformers",
        "mhc",
        frozenset({"read", "site"}),
        _transformers,
        gpu=False,
    ),
    "hyper-connections": Peer(
        "hyper_connections",
        "hyper-connections",
        "hc",
        frozenset({"site"}),
        _lucidrains,
        gpu=False,
        dtypes=(torch.float32,),
    ),
    "liger-style": Peer("torch", "torch", "mhc", _KERNELS, _liger_style, gpu=False),
    "liger": Peer("liger_kernel", "liger-kernel", "mhc", _KERNELS, _liger, streams=(2, 4, 8)),
    "tile-kernels": Peer(
        "tile_kernels",
        "tile-kernels",
        "mhc",
        _KERNELS,
        _tile_kernels,
        dtypes=(torch.bfloat16,),
        streams=(4,),
    ),
    "transformer-engine": Peer(
        "transformer_engine", "transformer-engine", "mhc", _KERNELS, _transformer_engine, streams=(4,)
    ),
}
"""By the name under which they are measured."""

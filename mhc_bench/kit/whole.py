"""Checks in a whole model: shared weights, the start, the KV cache, recomputation, saving."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhc_bench.kit.backbones import filled, token_ids, tokenizer
from mhc_bench.kit.outcome import Failed, largest
from mhc_bench.kit.subject import Subject
from mhc_bench.model import shared_weight_digest, weight_digest
from mhc_bench.model.grouping import decayed_names
from mhc_bench.model.layers import parameter_owners
from mhc_bench.model.quiet import quiet_transformers
from mhc_bench.model.recompute import recompute_blocks, recompute_layers
from mhc_bench.model.saving import load_model, save_model

CLOSE = 2e-5
"""Of fp32 over a small model, relative to the largest logit."""
EQUAL = 1e-6


def logits_of(model: Any, ids: Tensor | None = None) -> Tensor:
    """Logits [B, T, V] without a cache."""
    with torch.no_grad():
        found: Tensor = model(input_ids=token_ids() if ids is None else ids, use_cache=False).logits
    return found.float()


def shared_weights(subject: Subject) -> str:
    """Branch, norms, embeddings and their optimizer groups are the stock model's, before and after a pass."""
    stock = filled(subject.backbone.stock())
    expected = logits_of(stock)
    model, plain = subject.model(), subject.baseline()
    before = shared_weight_digest(model)
    if before != shared_weight_digest(plain):
        raise Failed("shared weights start otherwise than the baseline's", "__init__")
    logits_of(model)
    if shared_weight_digest(model) != before:
        raise Failed("a forward pass changes shared weights", "read")
    if not torch.equal(logits_of(filled(subject.backbone.stock())), expected):
        raise Failed("a stock model computes something else once the variant is built", "__init__")
    own = parameter_owners(model).keys()
    shared, base = dict(model.named_parameters()), dict(plain.named_parameters())
    if shared.keys() - own != base.keys() or any(not shared[name].requires_grad for name in base):
        raise Failed("shared parameters are other ones than the baseline's, or frozen", "__init__")
    if decayed_names(model) - own != decayed_names(plain):
        raise Failed("shared weights are in other optimizer groups than the baseline's", "decayed_parameters")
    return _no_own_hooks(model, plain)


def _no_own_hooks(model: Any, plain: Any) -> str:
    """Hooks are those of every grafted model."""
    usual = {name: _hooks(module) for name, module in plain.named_modules()}
    for name, module in model.named_modules():
        if _hooks(module) != usual.get(name, []) or "forward" in vars(module):
            raise Failed(f"{name} has been given a hook or another forward", "__init__")
    return ""


def _hooks(module: Any) -> list[Any]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def start(subject: Subject) -> str:
    """Step-0 logits are where it declares: the baseline's, within a tolerance of them, or its own."""
    model, plain = subject.model(), logits_of(subject.baseline())
    declared = next(iter(parameter_owners(model).values()), (subject.fresh(),))[0].start()
    found, difference = logits_of(model), largest(logits_of(model) - plain, plain)
    told = f"step-0 logits differ from the baseline's by {difference:.1e}, relative to the largest"
    if declared.kind == "exact" and not torch.equal(found, plain):
        raise Failed(f"the start is declared exact, but {told}", "start")
    if declared.kind == "approximate" and not difference <= declared.tolerance:
        raise Failed(f"the start is declared within {declared.tolerance:.1e}, but {told}", "start")
    if declared.kind == "own" and difference <= EQUAL:
        raise Failed("the start is the baseline's: declare it, exact or approximate", "start")
    return f"{declared.kind}: {told}" if declared.kind != "exact" else "exact"


def future(subject: Subject) -> str:
    """In a model, a changed last token changes no logit before it."""
    model, ids = subject.moved_model(), token_ids()
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % 40 + 2
    first, second = logits_of(model, ids), logits_of(model, other)
    if (found := largest((first - second)[:, :-1], first)) > CLOSE:
        raise Failed(f"the last token changes logits before it by {found:.1e}, relative", "read")
    return ""


def cache(subject: Subject) -> str:
    """With a KV cache, token by token, the logits are those of one pass over all tokens."""
    model, ids = subject.moved_model(), token_ids(rows=2, length=9)
    whole, parts, memory = logits_of(model, ids), [], None
    for begin, end in ((0, 4), *((k, k + 1) for k in range(4, 9))):
        with torch.no_grad():
            output = model(input_ids=ids[:, begin:end], past_key_values=memory, use_cache=True)
        memory = output.past_key_values
        parts.append(output.logits.float())
    if (found := largest(torch.cat(parts, dim=1) - whole, whole)) > CLOSE:
        reason = (
            f"logits with a KV cache differ by {found:.1e}, relative: a token may use its own stream alone"
        )
        raise Failed(reason, "read")
    return ""


def recompute(subject: Subject) -> str:
    """Activation checkpointing, by layers and by blocks, changes no gradient."""
    plain = _gradients(subject, "none")
    for how in ("layer", "block"):
        again = _gradients(subject, how)
        if missing := plain.keys() ^ again.keys():
            raise Failed(f"recomputing by {how}: {min(missing)} gets a gradient in one way only", "write")
        for name, expected in plain.items():
            if largest(again[name] - expected, expected) > CLOSE and expected.abs().max() > 1e-9:
                raise Failed(f"recomputing by {how} changes the gradient of {name}", "read")
    return ""


def _gradients(subject: Subject, how: str) -> dict[str, Tensor]:
    model = subject.moved_model().train()
    if how == "block":
        recompute_blocks(model, 4)
    if how == "layer":
        recompute_layers(model)
    model(input_ids=token_ids(), use_cache=False).logits.square().mean().backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def saving(subject: Subject) -> str:
    """A saved model loads by its variant's name, with the same weights, and computes the same."""
    model = subject.moved_model()
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        save_model(model, tokenizer(), Path(folder) / "saved")
        loaded, _ = load_model(Path(folder) / "saved")
    if weight_digest(loaded) != weight_digest(model):
        raise Failed("a saved and loaded model has other weights", "__init__")
    # the last bits of a matrix product may depend on where in memory a weight lies
    expected = logits_of(model)
    if (found := largest(logits_of(loaded) - expected, expected)) > EQUAL:
        raise Failed(
            f"logits of a saved model differ by {found:.1e}: what it needs must be saved", "__init__"
        )
    return ""

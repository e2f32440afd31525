"""Recomputation changes no bit of a run, and runs and keeps no more than it says."""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import on_ranks
from model_factory import FAMILIES, grafted, token_ids
from test_balancing import biases, expert_run, rows_of
from tiny_runs import tiny_run, write_corpus
from torch import Tensor

from mhc_bench.bench.activations import KeptStorages
from mhc_bench.config import RunConfig
from mhc_bench.config.schema import HardwareConfig
from mhc_bench.errors import UsageError
from mhc_bench.model.recompute import best_block, recompute_blocks
from mhc_bench.training import TrainingSummary, fit, module
from mhc_bench.training.layers import prepare_layers

WIDTH, TOKENS, LAYERS = 16, 64, 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def deep_run(corpus: Path, variant: str, recompute: str, **changes: Any) -> RunConfig:
    """Four layers, dropout in attention."""
    run = tiny_run(corpus, variant, **({"steps": 3} | changes), hardware__recompute=recompute)
    run.model.backbone |= {"num_hidden_layers": LAYERS, "attention_dropout": 0.1}
    return run


def same(summary: TrainingSummary, other: TrainingSummary) -> None:
    for name in ("weight_digest", "loss_curve", "gradient_norm", "validation", "probes"):
        assert getattr(summary, name) == getattr(other, name), name


@pytest.mark.parametrize("variant", ["baseline", "hc", "mhc"])
def test_recomputation_changes_no_bit_of_a_run(corpus: Path, tmp_path: Path, variant: str) -> None:
    kept = fit(deep_run(corpus, variant, "none"), tmp_path / "none")
    for recompute, sublayers in (("layer", 0), ("block", 0), ("block", 6), ("block", 8)):
        config = deep_run(corpus, variant, recompute, hardware__recompute_sublayers=sublayers)
        same(fit(config, tmp_path / f"{recompute}{sublayers}"), kept)


def test_several_forward_passes_per_step_keep_their_blocks_apart(corpus: Path, tmp_path: Path) -> None:
    parts = {"hardware__rows_per_device": 1, "hardware__recompute_sublayers": 2}
    runs = [fit(deep_run(corpus, "mhc", each, **parts), tmp_path / each) for each in ("none", "block")]
    same(*runs)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_change_no_gradient_of_any_family(family: str) -> None:
    """Families differ in where their norms stand and in what their sublayers save."""
    gradients = []
    for blocks in (False, True):
        model = grafted(family).train()
        if blocks:
            recompute_blocks(model, 4)
        model(input_ids=token_ids(), use_cache=False).logits.square().mean().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    assert all(map(torch.equal, gradients[0].values(), gradients[1].values()))


def watched(
    monkeypatch: pytest.MonkeyPatch, config: RunConfig, folder: Path
) -> tuple[list[int], Counter[str]]:
    """Bytes alive after each training forward pass, and how often modules ran from there to its gradients."""
    step, clip = module.ResidualTraining.training_step, module.ResidualTraining.configure_gradient_clipping
    kept: list[int] = []
    calls: Counter[str] = Counter()
    handles: list[Any] = []

    def training_step(self: module.ResidualTraining, batch: Any, batch_idx: int) -> Tensor:
        for name, part in self.model.named_modules():
            if name.endswith((".self_attn", ".mlp")):
                count = functools.partial(lambda name, *_: calls.update([name]), name)
                handles.append(part.register_forward_hook(count))
        with KeptStorages() as storages:
            loss = step(self, batch, batch_idx)
        kept.append(sum(storages.kept().values()))
        return loss

    def clipping(self: module.ResidualTraining, *args: Any, **kwargs: Any) -> None:
        while handles:
            handles.pop().remove()
        clip(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module.ResidualTraining, "training_step", training_step)
        patch.setattr(module.ResidualTraining, "configure_gradient_clipping", clipping)
        fit(config, folder)
    return kept, calls


@pytest.mark.parametrize(("recompute", "times"), [("none", 1), ("block", 1), ("layer", 2)])
def test_attention_and_mlp_run_forward_once_per_step_unless_whole_layers_are_recomputed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recompute: str, times: int
) -> None:
    _, calls = watched(monkeypatch, deep_run(corpus, "mhc", recompute, steps=2), tmp_path)
    assert len(calls) == 2 * LAYERS and set(calls.values()) == {2 * times}


def test_blocks_keep_a_stream_each_and_one_output_per_sublayer(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_per_token(variant: str, recompute: str, sublayers: int = 0) -> float:
        changes = {"steps": 2, "hardware__recompute_sublayers": sublayers}
        config = deep_run(corpus, variant, recompute, **changes)
        config.model.backbone["attention_dropout"] = 0.0
        first, second = watched(monkeypatch, config, tmp_path / f"{variant}-{recompute}-{sublayers}")[0]
        assert first == second
        return first / TOKENS / 4 / WIDTH  # in units of C

    plain = {size: bytes_per_token("baseline", "block", size) for size in (2, 4, 6, 8)}
    wide = {size: bytes_per_token("mhc", "block", size) for size in (2, 4, 6, 8)}
    for size, blocks in ((2, 4), (4, 2), (6, 2), (8, 1)):
        # 4 streams at the start of each block but the first, which starts with the embedding; nothing else
        assert wide[size] - plain[size] == pytest.approx(3 * (blocks - 1), abs=0.05)
        assert plain[size] - plain[8] == pytest.approx(blocks - 1, abs=0.05)
    # beside its stream a plain connection's sublayer keeps two tensors of its pre-norm, and now its output
    assert bytes_per_token("baseline", "none") - plain[8] > 2 * LAYERS * 1.5
    # kept without recomputation, by the paper's count: (n + 3) C for each sublayer
    assert bytes_per_token("mhc", "none") - wide[8] > 2 * LAYERS * (4 + 3)
    assert bytes_per_token("mhc", "layer") < wide[2]


def test_the_size_of_a_block_is_the_best_of_the_papers_count() -> None:
    def kept(n: int, depth: int, size: int) -> int:
        return n * math.ceil(depth / size) + (n + 2) * size

    for n, depth in ((4, 60), (4, 36), (2, 80), (8, 60)):
        best = min(range(1, depth + 1), key=lambda size: kept(n, depth, size))
        assert kept(n, depth, round(best_block(n, depth))) <= 1.05 * kept(n, depth, best)
    assert best_block(4, 60) == pytest.approx(6.32, abs=0.01)


def test_a_block_is_of_the_papers_size_unless_it_is_given() -> None:
    for given, streams, expected in ((0, 4, 1), (0, 2, 1), (4, 4, 2), (3, 4, 2), (1, 4, 1)):
        model = grafted("llama", "mhc", streams=streams)
        prepare_layers(model, HardwareConfig(recompute="block", recompute_sublayers=given))
        assert {layer.blocks.layers for layer in model.model.layers} == {expected}


@pytest.mark.parametrize("recompute", ["layer", "block"])
def test_the_load_of_experts_is_counted_once(corpus: Path, tmp_path: Path, recompute: str) -> None:
    for name in ("none", recompute):
        fit(expert_run(corpus, steps=3, hardware__recompute=name), tmp_path / name)
    assert rows_of(tmp_path / "none", "experts.csv") == rows_of(tmp_path / recompute, "experts.csv")
    assert torch.equal(biases(tmp_path / "none"), biases(tmp_path / recompute))


@pytest.mark.ranks
def test_the_load_of_experts_is_counted_once_on_two_ranks(corpus: Path, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        for recompute in ("layer", "block"):
            fit(expert_run(corpus, steps=2, hardware__recompute=recompute, **fsdp), tmp_path / recompute)

    fsdp = {"hardware__sharding": "fsdp", "hardware__devices": 2, "hardware__rows_per_device": 1}
    fit(expert_run(corpus, steps=2), tmp_path / "one")
    assert [code for code, _ in on_ranks(work)] == [0, 0]
    assert rows_of(tmp_path / "one", "experts.csv")
    for recompute in ("layer", "block"):
        assert rows_of(tmp_path / recompute, "experts.csv") == rows_of(tmp_path / "one", "experts.csv")
        assert torch.equal(biases(tmp_path / recompute), biases(tmp_path / "one"))


@pytest.mark.ranks
def test_recomputation_on_two_sharded_ranks_in_bf16_changes_no_bit(corpus: Path, tmp_path: Path) -> None:
    def work(rank: int) -> list[TrainingSummary]:
        return [fit(config, tmp_path / name) for name, config in configs.items()]

    fsdp = {"hardware__sharding": "fsdp", "hardware__devices": 2, "training__precision": "bf16"}
    sizes = {"none": 0, "layer": 0, "block": 4}
    configs = {
        name: deep_run(
            corpus, "mhc", name, hardware__recompute_sublayers=size, hardware__rows_per_device=1, **fsdp
        )
        for name, size in sizes.items()
    }
    (code, (kept, layer, block)), (other_code, _) = on_ranks(work)
    assert code == other_code == 0
    same(layer, kept)
    same(block, kept)


def test_blocks_in_compiled_layers_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hardware\.compile is True: expected false"):
        fit(deep_run(corpus, "mhc", "block", hardware__compile=True), tmp_path / "run")

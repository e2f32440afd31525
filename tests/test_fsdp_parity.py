"""FSDP2 over gloo: what one rank computes, two compute too; the maps stay in fp32."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child, on_ranks
from lightning.pytorch.strategies import ModelParallelStrategy
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import RunConfig
from mhc_bench.training import TrainingSummary, fit

EXPERTS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "q_lora_rank": None,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
"""A DeepSeek-V3 with latent attention and routed experts."""
VARIANTS = ("baseline", "hc", "mhc")
STEPS = 12
FP32_TOLERANCE = 5e-6
"""Largest difference of a step's loss, in nats: two ranks add the same numbers in another order."""
BF16_TOLERANCE = 5e-3

pytestmark = pytest.mark.ranks


@dataclass
class Shared:
    """What the tests of this file compare: the same runs on one rank and on two."""

    corpus: Path
    folder: Path
    runs: dict[str, list[TrainingSummary]]

    def rows(self, name: str, column: str) -> list[float]:
        with (self.folder / name / "metrics.csv").open() as handle:
            return [float(row[column]) for row in csv.DictReader(handle) if row[column]]


def sharded(corpus: Path, variant: str, devices: int, steps: int = STEPS, **changes: Any) -> RunConfig:
    return tiny_run(
        corpus,
        variant,
        steps=steps,
        data__validation_tokens=112,  # seven rows: the ranks' shares are not equal
        training__validate_every=6,
        training__probe_every=6,
        logging__checkpoint_every=100,
        hardware__sharding="fsdp",
        hardware__devices=devices,
        **changes,
    )


def trained(corpus: Path, folder: Path, devices: int) -> Callable[[int], dict[str, TrainingSummary]]:
    def work(rank: int) -> dict[str, TrainingSummary]:
        runs = {}
        for variant in VARIANTS:
            runs[variant] = fit(sharded(corpus, variant, devices), folder / f"{variant}-{devices}")
        rounded = sharded(corpus, "mhc", devices, training__precision="bf16")
        runs["mhc-bf16"] = fit(rounded, folder / f"mhc-bf16-{devices}")
        experts = sharded(corpus, "mhc", devices, 4, model__family="deepseek_v3", model__backbone=EXPERTS)
        runs["mhc-experts"] = fit(experts, folder / f"mhc-experts-{devices}")
        parts = sharded(corpus, "mhc", devices, hardware__rows_per_device=1)
        runs["mhc-parts"] = fit(parts, folder / f"mhc-parts-{devices}")
        return runs

    return work


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("fsdp")
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    corpus = write_corpus(tmp_path_factory.getbasetemp() / "corpus")
    ((code, one),) = on_ranks(trained(corpus, folder, 1), 1)
    two = on_ranks(trained(corpus, folder, 2), 2)
    assert [code, *(code for code, _ in two)] == [0, 0, 0]
    assert two[0][1] == two[1][1]
    return Shared(corpus, folder, {name: [one[name], two[0][1][name]] for name in one})


def losses_of(summary: TrainingSummary) -> list[float]:
    return [point["loss"] for point in summary.loss_curve]


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_sharded_rank_computes_the_bits_of_a_plain_run(
    shared: Shared, tmp_path: Path, variant: str
) -> None:
    config = sharded(shared.corpus, variant, 1)
    config.hardware.sharding = "none"
    plain = fit(config, tmp_path / "run")
    one = shared.runs[variant][0]
    assert one.weight_digest == plain.weight_digest
    assert losses_of(one) == losses_of(plain) and one.gradient_norm == plain.gradient_norm


@pytest.mark.parametrize("name", [*VARIANTS, "mhc-parts", "mhc-experts"])
def test_two_ranks_train_as_one(shared: Shared, name: str) -> None:
    one, two = shared.runs[name]
    assert losses_of(two) == pytest.approx(losses_of(one), abs=FP32_TOLERANCE)
    assert shared.rows(f"{name}-2", "gradient_norm") == pytest.approx(
        shared.rows(f"{name}-1", "gradient_norm"), rel=1e-5
    )
    for a, b in zip(one.validation, two.validation, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    # a rank that trained on its own would leave the others' losses behind by far more than the tolerance
    assert losses_of(one)[-1] < losses_of(one)[0] - 0.3


@pytest.mark.parametrize("name", VARIANTS)
def test_start_weights_and_token_stream_do_not_depend_on_the_number_of_ranks(
    shared: Shared, name: str
) -> None:
    one, two = shared.runs[name]
    assert one.shared_weight_digest == two.shared_weight_digest
    assert one.token_stream_digest == two.token_stream_digest
    assert (one.world_size, two.world_size) == (1, 2)


def test_bf16_on_two_ranks_stays_near_bf16_on_one(shared: Shared) -> None:
    one, two = shared.runs["mhc-bf16"]
    exact = losses_of(shared.runs["mhc"][0])
    assert losses_of(two) == pytest.approx(losses_of(one), abs=BF16_TOLERANCE)
    assert losses_of(one) != exact and losses_of(one) == pytest.approx(exact, abs=0.05)


def test_accumulation_on_two_ranks_gives_the_larger_batch(shared: Shared) -> None:
    assert losses_of(shared.runs["mhc-parts"][1]) == pytest.approx(
        losses_of(shared.runs["mhc"][0]), abs=FP32_TOLERANCE
    )


@pytest.mark.parametrize("variant", ["hc", "mhc"])
def test_maps_are_computed_in_fp32_on_two_ranks_in_bf16(shared: Shared, tmp_path: Path, variant: str) -> None:
    config = sharded(shared.corpus, variant, 2, steps=2, training__precision="bf16")

    def work(rank: int) -> dict[str, set[torch.dtype]]:
        return seen_dtypes(config, tmp_path)

    for code, seen in on_ranks(work):
        assert code == 0
        assert seen == {
            "stream": {torch.bfloat16},
            "own parameters": {torch.float32},
            "maps": {torch.float32},
            "gradients of own parameters": {torch.float32},
            "projection": {torch.bfloat16},
        }


def seen_dtypes(config: RunConfig, folder: Path) -> dict[str, set[torch.dtype]]:
    """What one rank meets inside the connections and beside them while it trains."""
    from mhc_bench.residual import ResidualConnection, resolve
    from mhc_bench.training import module

    kind: Any = resolve(config.variant.connection)
    compute, configure = kind.read, module.ResidualTraining.configure_gradient_clipping
    seen: dict[str, set[torch.dtype]] = {name: set() for name in ("stream", "own parameters", "maps")}
    seen["gradients of own parameters"], seen["projection"] = set(), set()

    def read(self: ResidualConnection, stream: torch.Tensor) -> Any:
        found = compute(self, stream)
        seen["stream"].add(stream.dtype)
        seen["own parameters"] |= {parameter.dtype for parameter in self.parameters()}
        seen["maps"] |= {each.dtype for each in found[1][:2]}
        return found

    def clipping(self: module.ResidualTraining, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        for name, parameter in self.model.named_parameters():
            if "_residual." in name and parameter.grad is not None:
                seen["gradients of own parameters"].add(parameter.grad.dtype)
        configure(self, optimizer)

    def projected(layer: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen["projection"].add(output.dtype)

    kind.read = read
    module.ResidualTraining.configure_gradient_clipping = clipping  # type: ignore[method-assign]
    build = module.build_model

    def hooked(*args: Any) -> Any:
        model = build(*args)
        model.model.layers[0].self_attn.q_proj.register_forward_hook(projected)
        return model

    module.build_model = hooked
    fit(config, folder)
    return seen


def test_a_mesh_that_does_not_span_all_ranks_is_refused(shared: Shared, tmp_path: Path) -> None:
    def work(rank: int) -> str:
        from mhc_bench.training import fitting

        # the default sizes make one group per node: on one machine every rank would train alone
        fitting.make_strategy = lambda config: ModelParallelStrategy()  # type: ignore[assignment]
        with pytest.raises(AssertionError, match="spans 1 of 2 ranks"):
            fit(sharded(shared.corpus, "baseline", 2), tmp_path)
        return "refused"

    assert on_ranks(work) == [(0, "refused"), (0, "refused")]


def test_a_launcher_with_another_number_of_ranks_is_refused(shared: Shared, tmp_path: Path) -> None:
    from mhc_bench.errors import UsageError

    def work() -> str:
        os.environ |= {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}
        with pytest.raises(UsageError, match=r"started 4 ranks: expected .* = 2"):
            fit(sharded(shared.corpus, "baseline", 2), tmp_path / "run")
        return "refused"

    assert in_child(work) == (0, "refused") and not (tmp_path / "run").exists()

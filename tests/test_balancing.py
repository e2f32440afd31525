"""Loss-free balancing: a skewed router becomes balanced, and its bias is saved and resumed."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import KILLED, in_child, on_ranks
from tiny_runs import CHANGING, tiny_run, write_corpus
from torch import Tensor, nn

from mhc_bench.config import RunConfig
from mhc_bench.errors import UsageError
from mhc_bench.model import load_run, routers
from mhc_bench.model.routing import correction_bias, count_choices, rebalance
from mhc_bench.training import TrainingSummary, fit, module

EXPERTS = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "q_lora_rank": None,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
SPEED = 0.02


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def expert_run(corpus: Path, **changes: Any) -> RunConfig:
    defaults: dict[str, Any] = {"steps": 6, "optimizer__balancing_speed": SPEED, "training__probe_every": 1}
    family = {"model__family": "deepseek_v3", "model__backbone": dict(EXPERTS)}
    return tiny_run(corpus, **(defaults | family | changes))


def rows_of(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / name).open() as handle:
        return [{k: v for k, v in row.items() if k not in CHANGING} for row in csv.DictReader(handle)]


def column(run_dir: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows_of(run_dir, "metrics.csv") if row[name]]


def biases(run_dir: Path) -> Tensor:
    """[R, E], of the model that the run saved."""
    model, _ = load_run(run_dir)
    return torch.stack([correction_bias(each) for each in routers(model).values()])


def skewed(materialise: Callable[..., None]) -> Callable[..., None]:
    """Start weights with a direction in all tokens that draws them to expert 0 and from expert 1."""

    def fill(model: Any, *args: Any, **kwargs: Any) -> None:
        materialise(model, *args, **kwargs)
        direction = torch.ones(16) / 4
        with torch.no_grad():
            model.model.embed_tokens.weight += 0.5 * direction
            for router in routers(model).values():
                router.weight *= (
                    2  # scores that differ from token to token by far more than a step of the bias
                )
                router.weight[0] += 0.7 * direction
                router.weight[1] -= 0.7 * direction

    return fill


@pytest.mark.parametrize("speed", [0.0, SPEED])
def test_a_skewed_router_becomes_balanced_by_its_bias_alone(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: float
) -> None:
    monkeypatch.setattr(module, "materialise", skewed(module.materialise))
    config = expert_run(
        corpus,
        steps=30 if speed else 12,
        optimizer__balancing_speed=speed,
        optimizer__learning_rate=1e-9,  # nothing but the bias can change the choice
        training__batch_tokens=512,
        training__validate_every=1000,
    )
    summary = fit(config, tmp_path)
    largest, least = (column(tmp_path, f"expert_load_{name}") for name in ("max", "min"))
    assert largest[0] > 1.8 and least[0] < 0.2
    if speed:
        assert sum(largest[-10:]) / 10 < 1.3 and sum(least[-10:]) / 10 > 0.7
        assert biases(tmp_path)[:, 0].max() < 0 < biases(tmp_path)[:, 1].min()
    else:
        assert min(largest[-10:]) > 1.8 and max(least[-10:]) < 0.2
        assert not biases(tmp_path).any()
    assert summary.probes["expert_load_max"]["final"] == pytest.approx(largest[-1], rel=1e-6)
    assert summary.probes["expert_load_max"]["max"] == pytest.approx(max(largest), rel=1e-6)


def test_the_tables_tell_the_load_of_every_expert(corpus: Path, tmp_path: Path) -> None:
    fit(expert_run(corpus), tmp_path)
    rows = rows_of(tmp_path, "experts.csv")
    assert [(row["step"], row["router"]) for row in rows] == [
        (f"{s}", f"{r}") for s in range(1, 7) for r in "01"
    ]
    loads = [[float(row[f"load_{expert}"]) for expert in range(4)] for row in rows]
    assert all(sum(load) == pytest.approx(4, rel=1e-6) for load in loads)
    pairs = list(zip(loads[::2], loads[1::2], strict=True))
    assert column(tmp_path, "expert_load_max") == pytest.approx([max(map(max, pair)) for pair in pairs])
    assert column(tmp_path, "expert_load_min") == pytest.approx([min(map(min, pair)) for pair in pairs])
    averages = [sum(map(max, pair)) / 2 for pair in pairs]
    assert column(tmp_path, "expert_load_max_average") == pytest.approx(averages)


def test_biases_move_by_the_sign_of_what_the_routers_really_chose(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An independent count: in `training_step` itself, of all forward passes of a step."""
    seen: list[list[Tensor]] = []
    step = module.ResidualTraining.training_step

    def counted(self: module.ResidualTraining, batch: Any, batch_idx: int) -> Tensor:
        def watch(router: nn.Module, args: Any, output: Any) -> None:
            chosen.append((output[2][..., None] == torch.arange(4)).sum((0, 1)))

        chosen: list[Tensor] = []
        handles = [each.register_forward_hook(watch) for each in routers(self.model).values()]
        loss = step(self, batch, batch_idx)
        for handle in handles:
            handle.remove()
        seen.append(chosen)
        return loss

    monkeypatch.setattr(module.ResidualTraining, "training_step", counted)
    fit(expert_run(corpus, hardware__rows_per_device=2), tmp_path)
    assert len(seen) == 12
    expected = torch.zeros(2, 4)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        load = torch.stack(first) + torch.stack(second)
        assert load.sum(1).tolist() == [2 * 64, 2 * 64]  # two experts for each token of the batch
        expected += SPEED * torch.sign(32 - load.float())
    torch.testing.assert_close(biases(tmp_path), expected)
    assert expected.any()


def test_without_a_speed_nothing_changes_but_the_tables(corpus: Path, tmp_path: Path) -> None:
    off = fit(expert_run(corpus, optimizer__balancing_speed=0.0), tmp_path / "off")
    on = fit(expert_run(corpus), tmp_path / "on")
    dense = fit(tiny_run(corpus, steps=2), tmp_path / "dense")
    assert not biases(tmp_path / "off").any() and biases(tmp_path / "on").any()
    assert off.weight_digest != on.weight_digest and off.shared_weight_digest == on.shared_weight_digest
    assert not any(
        "expert" in name for name in [*dense.probes, *rows_of(tmp_path / "dense", "metrics.csv")[0]]
    )
    assert not (tmp_path / "dense" / "experts.csv").exists()


def test_a_killed_run_resumes_with_its_biases(corpus: Path, tmp_path: Path) -> None:
    def killed() -> None:
        kill_before_update(5)
        fit(expert_run(corpus), tmp_path / "a")

    assert in_child(killed) == (KILLED, None)
    same(fit(expert_run(corpus), tmp_path / "a"), fit(expert_run(corpus), tmp_path / "b"), tmp_path)


@pytest.mark.ranks
def test_two_ranks_count_as_one_and_resume_from_shards_with_their_biases(
    corpus: Path, tmp_path: Path
) -> None:
    def work(rank: int) -> TrainingSummary:
        return fit(sharded, tmp_path / "b")

    def killed(rank: int) -> None:
        kill_before_update(5)
        fit(sharded, tmp_path / "a")

    def resumed(rank: int) -> TrainingSummary:
        return fit(sharded, tmp_path / "a")

    sharded = expert_run(corpus, hardware__sharding="fsdp", hardware__devices=2, hardware__rows_per_device=1)
    fit(expert_run(corpus), tmp_path / "one")
    assert all(code == KILLED for code, _ in on_ranks(killed))
    (first, again), (second, whole) = on_ranks(resumed)[0], on_ranks(work)[0]
    assert first == second == 0
    same(again, whole, tmp_path)
    torch.testing.assert_close(biases(tmp_path / "b"), biases(tmp_path / "one"))
    assert rows_of(tmp_path / "b", "experts.csv") == rows_of(tmp_path / "one", "experts.csv")


def kill_before_update(step: int) -> None:
    """Kill this process in place of its update number `step`, from 0."""
    calls, clip = iter(range(1000)), module.ResidualTraining.configure_gradient_clipping

    def clipping(*args: Any, **kwargs: Any) -> None:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        clip(*args, **kwargs)

    module.ResidualTraining.configure_gradient_clipping = clipping  # type: ignore[method-assign]


def same(resumed: TrainingSummary, whole: TrainingSummary, folder: Path) -> None:
    assert resumed.weight_digest == whole.weight_digest and resumed.probes == whole.probes
    assert resumed.restarts == 1 and whole.restarts == 0
    for table in ("metrics.csv", "experts.csv"):
        assert rows_of(folder / "a", table) == rows_of(folder / "b", table)
    assert torch.equal(biases(folder / "a"), biases(folder / "b")) and biases(folder / "a").any()


def test_a_speed_for_a_dense_model_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a model without routed experts"):
        fit(tiny_run(corpus, optimizer__balancing_speed=0.01), tmp_path / "run")
    with pytest.raises(UsageError, match=r"optimizer\.balancing_speed is -1"):
        fit(expert_run(corpus, optimizer__balancing_speed=-1.0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_expert_below_the_mean_gains_and_one_at_the_mean_stays() -> None:
    bias = torch.tensor([0.5, 0.0, 0.0, -0.25])
    rebalance(bias, torch.tensor([7, 3, 5, 5]), 0.125)
    assert bias.tolist() == [0.375, 0.125, 0.0, -0.25]
    uneven = torch.zeros(3)
    rebalance(uneven, torch.tensor([4, 3, 3]), 1.0)  # the mean is no whole number
    assert uneven.tolist() == [-1.0, 1.0, 1.0]


def test_choices_are_counted_wherever_they_stand_in_the_output() -> None:
    load, chosen = torch.zeros(4, dtype=torch.int64), torch.tensor([[0, 2], [2, 3]])
    count_choices((torch.rand(2, 4), torch.rand(2, 2), chosen), load)
    count_choices((chosen[:1], torch.rand(1, 2)), load)
    assert load.tolist() == [2, 0, 3, 1]

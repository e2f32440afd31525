"""Routed experts on 1, 2 and 4 ranks: equal choices give equal training; any further difference is a flip."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from forked import on_ranks
from routing_replay import Choices, flips, routed, with_one_flip
from test_balancing import EXPERTS, biases, column, rows_of
from test_fsdp_parity import BF16_TOLERANCE, FEW, FP32_TOLERANCE, STEPS, losses_of, sharded
from tiny_runs import write_corpus
from torch import Tensor

from mhc_bench.config import RunConfig
from mhc_bench.model import routers
from mhc_bench.training import TrainingSummary, fit, module

WORLDS = (2, 4)
FLIPPED = 7
"""The step in which one token is sent elsewhere."""
ROUTERS, TOKENS, CHOSEN = 2, 128, 2

pytestmark = pytest.mark.ranks


@dataclass
class Routed:
    """A run with routed experts, and what its routers chose."""

    summary: TrainingSummary
    choices: Choices

    @property
    def losses(self) -> list[float]:
        return losses_of(self.summary)


@dataclass
class Shared:
    corpus: Path
    folder: Path
    alone: Routed
    flipped: Routed
    """As `alone`, with one token of one step sent elsewhere."""
    replayed: dict[int, Routed]
    """World -> the choices of `alone`."""
    free: Routed
    """Two ranks' own choices."""
    replayed_flip: Routed
    """The choices of `flipped`, on two ranks."""
    bf16: dict[str, Routed]
    """`alone`, and on two ranks `replayed` and `free`."""


def expert_config(corpus: Path, devices: int, **changes: object) -> RunConfig:
    """Two layers of experts behind a dense one, balanced without a loss."""
    experts = {"model__family": "deepseek_v3", "model__backbone": dict(EXPERTS)}
    balanced = {"optimizer__balancing_speed": 0.01, "training__probe_every": 5}
    return sharded(corpus, "mhc", devices, **(experts | balanced | changes))


def routed_run(config: RunConfig, folder: Path, replay: Choices | None = None) -> Routed:
    with routed(replay) as choices:
        summary = fit(config, folder)
    return Routed(summary, choices)


def in_a_world(work: Callable[[int], list[Routed]], world: int) -> list[Routed]:
    ended = on_ranks(work, world)
    assert [code for code, _ in ended] == [0] * world
    found: list[Routed] = ended[0][1]
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("experts")
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    corpus = write_corpus(tmp_path_factory.getbasetemp() / "corpus")

    def config(world: int, precision: str = "fp32") -> RunConfig:
        steps = STEPS if precision == "fp32" else FEW
        return expert_config(corpus, world, steps=steps, training__precision=precision)

    def one(rank: int) -> list[Routed]:
        alone = routed_run(config(1), folder / "alone")
        elsewhere = with_one_flip(alone.choices, FLIPPED, EXPERTS["n_routed_experts"])  # type: ignore[arg-type]
        flipped = routed_run(config(1), folder / "flipped", elsewhere)
        return [alone, flipped, routed_run(config(1, "bf16"), folder / "bf16")]

    alone, flipped, rounded = in_a_world(one, 1)

    def two(rank: int) -> list[Routed]:
        return [
            routed_run(config(2), folder / "replayed-2", alone.choices),
            routed_run(config(2), folder / "free"),
            routed_run(config(2), folder / "replayed-flip", flipped.choices),
            routed_run(config(2, "bf16"), folder / "replayed-bf16", rounded.choices),
            routed_run(config(2, "bf16"), folder / "free-bf16"),
        ]

    def four(rank: int) -> list[Routed]:
        return [routed_run(config(4), folder / "replayed-4", alone.choices)]

    on_two, free, replayed_flip, replayed_bf16, free_bf16 = in_a_world(two, 2)
    (on_four,) = in_a_world(four, 4)
    bf16 = {"alone": rounded, "replayed": replayed_bf16, "free": free_bf16}
    return Shared(corpus, folder, alone, flipped, {2: on_two, 4: on_four}, free, replayed_flip, bf16)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_that_choose_as_one_train_as_one(shared: Shared, world: int) -> None:
    alone, several = shared.alone, shared.replayed[world]
    assert [tuple(each.shape) for each in several.choices] == [(ROUTERS, TOKENS, CHOSEN)] * STEPS
    assert flips(several.choices, alone.choices) == [0] * STEPS
    assert several.losses == pytest.approx(alone.losses, abs=FP32_TOLERANCE)
    there, here = shared.folder / f"replayed-{world}", shared.folder / "alone"
    assert column(there, "gradient_norm") == pytest.approx(column(here, "gradient_norm"), rel=1e-4)
    assert rows_of(there, "experts.csv") == rows_of(here, "experts.csv")
    assert torch.equal(biases(there), biases(here)) and biases(here).any()
    assert alone.losses[-1] < alone.losses[0] - 0.3


def until_a_flip(free: Routed, alone: Routed) -> int:
    """Steps with the same choices; says how many of all choices flipped."""
    flipped = flips(free.choices, alone.choices)
    print(f"{sum(flipped)} of {len(flipped) * ROUTERS * TOKENS * CHOSEN} choices flipped on two ranks")
    return next((step for step, count in enumerate(flipped) if count), len(flipped))


def test_free_ranks_differ_by_no_more_than_rounding_until_a_choice_flips(shared: Shared) -> None:
    agreeing = until_a_flip(shared.free, shared.alone)
    assert agreeing > 0
    found, expected = (run.losses[:agreeing] for run in (shared.free, shared.alone))
    assert found == pytest.approx(expected, abs=FP32_TOLERANCE)


def test_in_bf16_choices_flip_unless_they_are_replayed(shared: Shared) -> None:
    alone, replayed, free = (shared.bf16[name] for name in ("alone", "replayed", "free"))
    assert sum(flips(replayed.choices, alone.choices)) == 0 < sum(flips(free.choices, alone.choices))
    assert replayed.losses == pytest.approx(alone.losses, abs=BF16_TOLERANCE)
    agreeing = until_a_flip(free, alone)
    assert free.losses[:agreeing] == pytest.approx(alone.losses[:agreeing], abs=BF16_TOLERANCE)


def test_one_flipped_choice_changes_the_loss_by_more_than_rounding(shared: Shared) -> None:
    alone, flipped = shared.alone, shared.flipped
    assert flips(flipped.choices, alone.choices) == [int(step == FLIPPED) for step in range(STEPS)]
    assert flipped.losses[:FLIPPED] == alone.losses[:FLIPPED]  # replaying the own choices changes no bit
    changes = [abs(a - b) for a, b in zip(flipped.losses, alone.losses, strict=True)]
    assert max(changes[FLIPPED:]) > 2 * FP32_TOLERANCE
    # and nothing but the flip is behind it: ranks that flip the same token train as this run does
    assert shared.replayed_flip.losses == pytest.approx(flipped.losses, abs=FP32_TOLERANCE)


def test_a_perturbed_router_flips_choices_and_its_replay_does_not(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill, few = module.materialise, {"steps": 3, "training__validate_every": 3}

    def perturbed(model: torch.nn.Module, *args: object, **kwargs: object) -> None:
        fill(model, *args, **kwargs)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(1)
        for router in routers(model).values():
            weight: Tensor = router.weight  # type: ignore[assignment]
            noise = torch.randn(weight.shape, generator=generator)
            with torch.no_grad():
                weight.copy_(weight * (1 + 0.2 * noise))

    config = expert_config(shared.corpus, 1, hardware__sharding="none", **few)
    own = routed_run(config, tmp_path / "own")
    monkeypatch.setattr(module, "materialise", perturbed)
    free = routed_run(config, tmp_path / "free")
    bound = routed_run(config, tmp_path / "bound", own.choices)
    assert all(count > 5 for count in flips(free.choices, own.choices))
    assert flips(bound.choices, own.choices) == [0, 0, 0]
    apart = [abs(run.losses[0] - own.losses[0]) for run in (free, bound)]
    assert apart[0] > 2 * apart[1] > 0

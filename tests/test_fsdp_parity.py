"""FSDP2 over gloo: what one rank computes, two and four compute too."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import in_child, on_ranks
from lightning.pytorch.strategies import ModelParallelStrategy
from tiny_runs import tiny_run, write_corpus
from torch.distributed.tensor import DTensor

from mhc_bench.config import RunConfig
from mhc_bench.training import TrainingSummary, fit

VARIANTS = ("baseline", "hc", "mhc")
WORLDS = (1, 2, 4)
STEPS = 20
FEW = 6
CLIP = 0.1
"""Below the gradient norm of every step: all are clipped."""
FP32_TOLERANCE = 5e-6
"""Largest difference of a step's loss in nats, where ranks add the same numbers in another order: ten times
the spacing of fp32 numbers at the losses of the start (4.8e-7). 6.0e-7 was found over 20 steps."""
BF16_TOLERANCE = 5e-3

pytestmark = pytest.mark.ranks


@dataclass
class Clipping:
    """One step's gradients, gathered whole on every rank and summed in float64."""

    norm: float
    norm_after: float
    deviation: float
    """Largest difference of a gradient after clipping from the one before times CLIP / norm."""


@dataclass
class Ranks:
    """What the first rank of a world returned of all runs."""

    summaries: dict[str, TrainingSummary]
    clipping: list[Clipping]


@dataclass
class Shared:
    """What the tests of this file compare: the same runs on 1, 2 and 4 ranks."""

    corpus: Path
    folder: Path
    worlds: dict[int, Ranks]

    def run(self, name: str, world: int) -> TrainingSummary:
        return self.worlds[world].summaries[name]

    def norms(self, name: str, world: int) -> list[float]:
        with (self.folder / f"{name}-{world}" / "metrics.csv").open() as handle:
            return [float(row["gradient_norm"]) for row in csv.DictReader(handle) if row["gradient_norm"]]


def sharded(corpus: Path, variant: str, devices: int, steps: int = STEPS, **changes: Any) -> RunConfig:
    """Eight rows of 16 tokens a step."""
    defaults: dict[str, Any] = {
        "data__validation_tokens": 112,  # seven rows: the ranks' shares are not equal
        "training__batch_tokens": 128,
        "training__validate_every": 10,
        "training__probe_every": 1000,
        "optimizer__clip": CLIP,
        "logging__checkpoint_every": 1000,
        "hardware__sharding": "fsdp",
        "hardware__devices": devices,
    }
    return tiny_run(corpus, variant, steps=steps, **(defaults | changes))


def trained(corpus: Path, folder: Path, devices: int) -> Callable[[int], Ranks]:
    def work(rank: int) -> Ranks:
        configs = {variant: sharded(corpus, variant, devices) for variant in VARIANTS}
        configs["parts"] = sharded(corpus, "mhc", devices, FEW, hardware__rows_per_device=1)
        if devices == 1:
            configs["whole"] = sharded(corpus, "mhc", devices, FEW)
        if devices <= 2:
            configs["bf16"] = sharded(corpus, "mhc", devices, FEW, training__precision="bf16")
        summaries, seen = {}, list[Clipping]()
        for name, config in configs.items():
            with watched_clipping(seen) if name == "mhc" else contextlib.nullcontext():
                summaries[name] = fit(config, folder / f"{name}-{devices}")
        return Ranks(summaries, seen)

    return work


@contextlib.contextmanager
def watched_clipping(seen: list[Clipping]) -> Iterator[None]:
    """Inside, every step's gradients before and after they are clipped are noted."""
    from mhc_bench.training.module import ResidualTraining

    clip = ResidualTraining.configure_gradient_clipping

    def clipping(self: ResidualTraining, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        before = own_gradients(self.model)
        clip(self, optimizer)
        seen.append(compared(whole(before), whole(own_gradients(self.model))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResidualTraining, "configure_gradient_clipping", clipping)
        yield


def own_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    """This rank's rows of all gradients, float64 copies."""
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [(each.to_local() if isinstance(each, DTensor) else each).double().clone() for each in found]


def whole(own: list[torch.Tensor]) -> list[torch.Tensor]:
    """All rows of all gradients; FSDP2 gives each rank consecutive rows."""
    parts: list[Any] = [own]
    if dist.is_initialized():
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, own)
    return [torch.cat(rows) for rows in zip(*parts, strict=True)]


def compared(before: list[torch.Tensor], after: list[torch.Tensor]) -> Clipping:
    norm, norm_after = (math.sqrt(sum(float(each.square().sum()) for each in all)) for all in (before, after))
    pairs = zip(before, after, strict=True)
    return Clipping(norm, norm_after, max(float((a * CLIP / norm - b).abs().max()) for a, b in pairs))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("fsdp")
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    corpus = write_corpus(tmp_path_factory.getbasetemp() / "corpus")
    worlds = {}
    for world in WORLDS:
        ended = on_ranks(trained(corpus, folder, world), world)
        assert [code for code, _ in ended] == [0] * world
        assert all(found == ended[0][1] for _, found in ended)
        worlds[world] = ended[0][1]
    return Shared(corpus, folder, worlds)


def losses_of(summary: TrainingSummary) -> list[float]:
    return [point["loss"] for point in summary.loss_curve]


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_sharded_rank_computes_the_bits_of_a_plain_run(
    shared: Shared, tmp_path: Path, variant: str
) -> None:
    config = sharded(shared.corpus, variant, 1)
    config.hardware.sharding = "none"
    plain = fit(config, tmp_path / "run")
    one = shared.run(variant, 1)
    assert one.weight_digest == plain.weight_digest
    assert losses_of(one) == losses_of(plain) and one.gradient_norm == plain.gradient_norm


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("name", VARIANTS)
def test_several_ranks_train_as_one(shared: Shared, name: str, world: int) -> None:
    one, several = shared.run(name, 1), shared.run(name, world)
    assert len(losses_of(one)) == STEPS
    assert losses_of(several) == pytest.approx(losses_of(one), abs=FP32_TOLERANCE)
    assert shared.norms(name, world) == pytest.approx(shared.norms(name, 1), rel=1e-4)
    for a, b in zip(one.validation, several.validation, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    # a rank that trained on its own would leave the others' losses behind by far more than the tolerance
    assert losses_of(one)[-1] < losses_of(one)[0] - 0.3


@pytest.mark.parametrize("world", WORLDS)
def test_gradients_are_clipped_by_the_norm_over_all_ranks(shared: Shared, world: int) -> None:
    steps = shared.worlds[world].clipping
    assert len(steps) == STEPS
    for step, alone in zip(steps, shared.worlds[1].clipping, strict=True):
        assert step.norm > 1.5 * CLIP
        assert step.norm == pytest.approx(alone.norm, rel=1e-4)
        assert step.norm_after == pytest.approx(CLIP, rel=1e-5)
        assert step.deviation < 1e-6 * CLIP
    every = shared.run("mhc", world).gradient_norm
    assert every["max"] == pytest.approx(max(step.norm for step in steps), rel=1e-6)


@pytest.mark.parametrize("world", WORLDS)
def test_accumulation_gives_the_larger_batch(shared: Shared, world: int) -> None:
    """One row a pass: 8, 4 and 2 passes a step."""
    parts, whole = losses_of(shared.run("parts", world)), losses_of(shared.run("whole", 1))
    assert len(parts) == FEW and parts == pytest.approx(whole, abs=FP32_TOLERANCE)
    assert shared.norms("parts", world) == pytest.approx(shared.norms("whole", 1), rel=1e-4)


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("name", VARIANTS)
def test_start_weights_and_token_stream_do_not_depend_on_the_number_of_ranks(
    shared: Shared, name: str, world: int
) -> None:
    one, several = shared.run(name, 1), shared.run(name, world)
    assert one.shared_weight_digest == several.shared_weight_digest
    assert one.token_stream_digest == several.token_stream_digest
    assert (one.world_size, several.world_size) == (1, world)


def test_bf16_on_two_ranks_stays_near_bf16_on_one(shared: Shared) -> None:
    one, two, exact = (losses_of(shared.run(*which)) for which in (("bf16", 1), ("bf16", 2), ("whole", 1)))
    assert two == pytest.approx(one, abs=BF16_TOLERANCE)
    assert one != exact and one == pytest.approx(exact, abs=0.05)


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

"""A checkpoint goes on with another number of ranks and another sharding: the same bits, the same losses."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import model_factory as make
import pytest
import torch
from forked import on_ranks
from tiny_runs import MachineGoneError, before_update, tiny_run, write_corpus
from torch import Tensor

from mhc_bench.config import RunConfig
from mhc_bench.model.digests import digest, persistent_tensors
from mhc_bench.training import TrainingSummary, fit, module, state
from mhc_bench.training.fitting import lightning_quiet

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fsdp-2": {"hardware__sharding": "fsdp", "hardware__devices": 2},
    "fsdp-4": {"hardware__sharding": "fsdp", "hardware__devices": 4},
    "hsdp-2x2": {
        "hardware__sharding": "hsdp",
        "hardware__devices": 2,
        "hardware__nodes": 2,
        "hardware__rows_per_device": 1,  # of two: replicas join after the second part
    },
}
"""Name -> the hardware. Of 4 ranks some hold no row of the smallest parameters."""
MOVES = [
    ("plain", "fsdp-2"),
    ("plain", "fsdp-4"),
    ("fsdp-2", "plain"),
    ("fsdp-2", "hsdp-2x2"),
    ("hsdp-2x2", "fsdp-2"),
    ("hsdp-2x2", "fsdp-4"),
    ("hsdp-2x2", "plain"),
]
"""From which layout a run goes on with which."""
STEPS, STOP = 4, 2
FP32_TOLERANCE = 5e-6

Loaded = tuple[str, str]
"""Digests of weights and of both moments."""

pytestmark = pytest.mark.ranks


def run_on(corpus: Path, layout: str) -> RunConfig:
    shallow = tiny_run(corpus).model.backbone | {"num_hidden_layers": 1}
    return tiny_run(
        corpus,
        "mhc",
        steps=STEPS,
        model__backbone=shallow,
        training__batch_tokens=128,
        optimizer__clip=0.2,
        training__validate_every=STEPS,
        training__probe_every=STEPS,
        **LAYOUTS[layout],
    )


def ranks_of(layout: str) -> int:
    hardware = run_on(Path(), layout).hardware
    return hardware.devices * hardware.nodes


def digests_of(model: Any, optimizer: dict[str, dict[str, Tensor]]) -> Loaded:
    moments = [(f"{name}.{kind}", each[kind]) for name, each in optimizer.items() for kind in sorted(each)]
    return digest(persistent_tensors(model)), digest(sorted(moments, key=lambda pair: pair[0]))


def stopped(config: RunConfig, folder: Path) -> Loaded:
    """Train until the step after the checkpoint of step 2; what that checkpoint should hold."""
    saved: list[Loaded] = []
    save = state.PortableState.save_checkpoint

    def watched(self: Any, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        saved.append(digests_of(self._decoder(), checkpoint["optimizer_states"][0]["state"]))
        save(self, checkpoint, *args, **kwargs)

    def gone() -> None:
        raise MachineGoneError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.PortableState, "save_checkpoint", watched)
        patch.setattr(module.ResidualTraining, "configure_gradient_clipping", before_update(STOP + 1, gone))
        with pytest.raises(MachineGoneError):
            fit(config, folder)
    return saved[-1]


def resumed(config: RunConfig, folder: Path) -> tuple[Loaded, TrainingSummary]:
    """Go on to the end; what was loaded, and the summary."""
    loaded: list[Loaded] = []
    read = state.read_state

    def watched(*args: Any) -> dict[str, Any]:
        rest = read(*args)
        (_, model, optimizer, _) = args
        loaded.append(digests_of(model, state.get_optimizer_state_dict(model, optimizer)["state"]))
        return rest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "read_state", watched)
        summary = fit(config, folder)
    return loaded[0], summary


def test_a_parameter_without_a_gradient_so_far_has_no_moments_afterwards(tmp_path: Path) -> None:
    models = [make.grafted("llama", "hc"), make.grafted("llama", "hc", seed=1)]
    first, second = (torch.optim.AdamW(model.parameters(), lr=0.1) for model in models)
    for parameter in list(models[0].parameters())[1:]:
        parameter.grad = torch.ones_like(parameter)
    first.step()
    saved = state.get_optimizer_state_dict(models[0], first)
    rest = io.BytesIO()
    torch.save({"param_groups": saved["param_groups"]}, rest)
    tensors = {"weights": dict(persistent_tensors(models[0])), "optimizer": saved["state"]}
    with lightning_quiet():
        state.write_state(tmp_path / "state", tensors, rest.getvalue(), None, "a run")
        state.read_state(tmp_path / "state", models[1], second, None)
    without, *others = models[1].parameters()
    assert without not in second.state and all(second.state[each]["step"] == 1 for each in others)
    assert digest(persistent_tensors(models[1])) == digest(persistent_tensors(models[0]))


Moves = dict[tuple[str, str], tuple[Loaded, Loaded, TrainingSummary]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    return fit(run_on(corpus, "plain"), tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def moves(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Moves:
    """What was saved, what was loaded and how the run ended, of each move."""
    root = tmp_path_factory.mktemp("moves")
    saved: dict[str, Loaded] = {}
    ends: dict[tuple[str, str], tuple[Loaded, TrainingSummary]] = {}

    def work(rank: int, begun: list[str], gone_on: list[tuple[str, str]]) -> Any:
        first = {name: stopped(run_on(corpus, name), root / name) for name in begun}
        second = {}
        for name, then in gone_on:
            folder = root / f"{name}-{then}"
            if rank == 0:
                shutil.copytree(root / name, folder)
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
            second[name, then] = resumed(run_on(corpus, then), folder)
        return first, second

    # few processes, each used for all that its ranks have to do
    for world, begun in ((1, ["plain"]), (2, ["fsdp-2"]), (4, ["hsdp-2x2"]), (2, []), (1, [])):
        here = [m for m in MOVES if ranks_of(m[1]) == world and m not in ends and m[0] in {*saved, *begun}]
        found = on_ranks(lambda rank: work(rank, begun, here), world, nodes=max(1, world // 2))  # noqa: B023
        assert [code for code, _ in found] == [0] * world
        saved |= found[0][1][0]
        ends |= found[0][1][1]
    return {move: (saved[move[0]], *ends[move]) for move in MOVES}


@pytest.mark.parametrize("move", MOVES, ids="-to-".join)
def test_another_layout_loads_the_bits_that_were_saved(moves: Moves, move: tuple[str, str]) -> None:
    saved, loaded, _ = moves[move]
    assert loaded == saved


@pytest.mark.parametrize("move", MOVES, ids="-to-".join)
def test_losses_and_token_stream_go_on_as_in_an_undisturbed_run(
    moves: Moves, undisturbed: TrainingSummary, move: tuple[str, str]
) -> None:
    _, _, summary = moves[move]
    losses, whole = ([point["loss"] for point in each.loss_curve] for each in (summary, undisturbed))
    assert losses == pytest.approx(whole, abs=FP32_TOLERANCE) and len(losses) == STEPS
    assert summary.gradient_norm == pytest.approx(undisturbed.gradient_norm, rel=1e-5)
    assert summary.gradient_norm["mean"] > 0.2  # else nothing was clipped
    assert summary.token_stream_digest == undisturbed.token_stream_digest
    assert summary.validation[-1]["loss"] == pytest.approx(undisturbed.validation[-1]["loss"], rel=1e-5)
    assert (summary.steps, summary.restarts) == (STEPS, 1)


@pytest.mark.parametrize("move", MOVES, ids="-to-".join)
def test_the_summary_says_from_which_step_on_the_hardware_was_another(
    corpus: Path, moves: Moves, undisturbed: TrainingSummary, move: tuple[str, str]
) -> None:
    _, _, summary = moves[move]
    first, then = (run_on(corpus, layout) for layout in move)
    assert [(row["after_step"], row["cost_id"]) for row in summary.hardware] == [
        (0, first.cost_id),
        (STOP, then.cost_id),
    ]
    assert summary.hardware[1]["sharding"] == then.hardware.sharding
    assert len(undisturbed.hardware) == 1

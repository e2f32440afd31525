"""A run that is killed anywhere and run again ends with the same bits as one that never was."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import KILLED, in_child, on_ranks
from safetensors.torch import load_file, save_file
from tiny_runs import CHANGING, tiny_run, write_corpus
from transformers import PreTrainedTokenizerFast

from mhc_bench import files
from mhc_bench.config import RunConfig
from mhc_bench.config.identity import run_id
from mhc_bench.errors import RunError
from mhc_bench.model.saving import FINAL, saved_weight_digest
from mhc_bench.training import TrainingSummary, checkpoints, fit, fitting, module, probes, state
from mhc_bench.training.checkpoints import checkpoint_folders, newest_good

STEPS = 7


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSummary, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit(run_with_dropout(corpus), folder), folder


def run_with_dropout(corpus: Path) -> RunConfig:
    """Two forward passes per step and random numbers in each: a resume must hit both exactly."""
    return tiny_run(
        corpus,
        "mhc",
        steps=STEPS,
        hardware__rows_per_device=2,
        model__backbone=tiny_run(corpus).model.backbone | {"attention_dropout": 0.2},
    )


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def call_number(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, but the process is killed in place of its `number`-th call (from 0)."""
    calls = iter(range(1_000_000))
    return lambda *args, **kwargs: die() if next(calls) == number else function(*args, **kwargs)


def before_any_checkpoint() -> None:
    target = module.ResidualTraining
    target.configure_gradient_clipping = call_number(1, target.configure_gradient_clipping)  # type: ignore


def between_the_passes_of_a_step() -> None:
    target = module.ResidualTraining
    target.training_step = call_number(2 * 4 + 1, target.training_step)  # type: ignore[method-assign]


def before_the_update() -> None:
    target = module.ResidualTraining
    target.configure_gradient_clipping = call_number(5, target.configure_gradient_clipping)  # type: ignore


def inside_a_checkpoint() -> None:
    state.manifest = call_number(1, state.manifest)


def before_a_checkpoint_gets_its_name() -> None:
    name = Path.replace
    Path.replace = lambda self, to: die() if to.name == "step-00000004" else name(self, to)  # type: ignore


def inside_a_validation() -> None:
    target = module.ResidualTraining
    target.validation_step = call_number(2 + 1, target.validation_step)  # type: ignore[method-assign]


def before_the_final_model() -> None:
    fitting.save_model = call_number(0, fitting.save_model)


def inside_the_final_model() -> None:
    target = PreTrainedTokenizerFast
    target.save_pretrained = call_number(0, target.save_pretrained)


def inside_a_table() -> None:
    files.Path.chmod = call_number(4, files.Path.chmod)  # type: ignore[method-assign]


def after_the_final_model() -> None:
    fitting.write_summary = call_number(0, fitting.write_summary)


PLACES = [
    before_any_checkpoint,
    between_the_passes_of_a_step,
    before_the_update,
    inside_a_checkpoint,
    before_a_checkpoint_gets_its_name,
    inside_a_validation,
    before_the_final_model,
    inside_the_final_model,
    inside_a_table,
    after_the_final_model,
]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as handle:
        return [{k: v for k, v in row.items() if k not in CHANGING} for row in csv.DictReader(handle)]


def same(summary: TrainingSummary, folder: Path, other: TrainingSummary, other_folder: Path) -> None:
    """Everything but times agrees, bit for bit, and nothing is left over."""
    for name in (
        "weight_digest",
        "token_stream_digest",
        "validation",
        "loss_curve",
        "probes",
        "gradient_norm",
    ):
        assert getattr(summary, name) == getattr(other, name), name
    for table in ("metrics.csv", "probes.csv"):
        assert rows(folder, table) == rows(other_folder, table)
    left, expected = (
        {path.relative_to(root).as_posix() for path in root.rglob("*")} for root in (folder, other_folder)
    )
    assert left == expected


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(
    corpus: Path, tmp_path: Path, undisturbed: tuple[TrainingSummary, Path], place: Callable[[], None]
) -> None:
    config = run_with_dropout(corpus)

    def killed() -> None:
        place()
        fit(config, tmp_path)

    assert in_child(killed) == (KILLED, None)
    assert not (tmp_path / "training.json").exists()
    summary = fit(config, tmp_path)
    same(summary, tmp_path, *undisturbed)
    assert summary.restarts == 1


def test_a_run_that_is_killed_twice_counts_both(corpus: Path, tmp_path: Path, undisturbed: Any) -> None:
    config = run_with_dropout(corpus)
    for place in (before_the_update, before_the_final_model):

        def killed(place: Callable[[], None] = place) -> None:
            place()
            fit(config, tmp_path)

        in_child(killed)
    summary = fit(config, tmp_path)
    same(summary, tmp_path, *undisturbed)
    assert summary.restarts == 2


def test_a_probe_that_fails_when_a_run_goes_on_costs_neither_rows_nor_the_run(
    corpus: Path, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rank, calls = run_with_dropout(corpus), probes.effective_rank, iter(range(1000))

    def killed() -> None:
        before_the_update()
        fit(config, tmp_path)

    def failing(streams: torch.Tensor) -> torch.Tensor:
        if next(calls) == 0:
            raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]
        return rank(streams)

    assert in_child(killed) == (KILLED, None)
    monkeypatch.setattr(probes, "effective_rank", failing)
    same(fit(config, tmp_path), tmp_path, *undisturbed)
    assert next(calls) > 1


@pytest.mark.ranks
def test_two_ranks_of_which_one_is_killed_end_with_the_same_bits(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(
        corpus,
        "mhc",
        steps=STEPS,
        hardware__sharding="fsdp",
        hardware__devices=2,
        logging__checkpoint_every=4,
    )

    def work(kill: bool, folder: Path) -> Callable[[int], TrainingSummary]:
        def run(rank: int) -> TrainingSummary:
            if kill and rank == 1:
                before_the_update()
            return fit(config, folder)

        return run

    assert on_ranks(work(True, tmp_path / "a"))[1] == (KILLED, None)
    assert [path.name for path in checkpoint_folders(tmp_path / "a")] == ["step-00000004"]
    (code, resumed), _ = on_ranks(work(False, tmp_path / "a"))
    (other_code, whole), _ = on_ranks(work(False, tmp_path / "b"))
    assert code == other_code == 0
    same(resumed, tmp_path / "a", whole, tmp_path / "b")
    assert resumed.restarts == 1


@pytest.fixture
def interrupted(corpus: Path, tmp_path: Path) -> tuple[RunConfig, Path]:
    """A run that was killed in its sixth step: checkpoints of steps 2 and 4 stand."""
    config = run_with_dropout(corpus)

    def killed() -> None:
        before_the_update()
        fit(config, tmp_path)

    in_child(killed)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000004", "step-00000002"]
    return config, tmp_path


@pytest.mark.parametrize("damage", ["truncated", "altered", "no state", "no manifest", "manifest cut"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    interrupted: tuple[RunConfig, Path], undisturbed: tuple[TrainingSummary, Path], damage: str
) -> None:
    config, folder = interrupted
    newest, _ = checkpoint_folders(folder)
    hurt(newest, damage)
    found = newest_good(folder, run_id(config))
    assert found is not None and found.name == "step-00000002"
    same(fit(config, folder), folder, *undisturbed)


def hurt(checkpoint: Path, damage: str) -> None:
    (shard,), manifest = checkpoint.glob("shard-*"), checkpoint / "manifest.json"
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "no state":
        shard.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:20])


def test_a_run_whose_checkpoints_are_all_damaged_starts_over(
    interrupted: tuple[RunConfig, Path], undisturbed: tuple[TrainingSummary, Path]
) -> None:
    config, folder = interrupted
    for checkpoint in checkpoint_folders(folder):
        hurt(checkpoint, "truncated")
    assert newest_good(folder, run_id(config)) is None
    same(fit(config, folder), folder, *undisturbed)


@pytest.mark.parametrize("of", ["another seed", "an earlier step"])
def test_a_whole_checkpoint_in_the_wrong_place_is_not_resumed_from(
    interrupted: tuple[RunConfig, Path], undisturbed: tuple[TrainingSummary, Path], of: str
) -> None:
    config, folder = interrupted
    newest, before = checkpoint_folders(folder)
    if of == "another seed":
        manifest = json.loads((newest / "manifest.json").read_text())
        owner = run_id(dataclasses.replace(config, seed=1))
        (newest / "manifest.json").write_text(json.dumps(manifest | {"run": owner}))
        expected = before
    else:
        shutil.copytree(before, before.with_name("step-00000006"))
        expected = newest
    assert newest_good(folder, run_id(config)) == expected
    same(fit(config, folder), folder, *undisturbed)


def test_a_checkpoint_that_cannot_be_read_for_now_is_left_alone(
    interrupted: tuple[RunConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = interrupted

    def gone(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoints, "file_digest", gone)
    with pytest.raises(RunError, match="cannot be read") as caught:
        fit(config, folder)
    assert "\n" not in str(caught.value) and len(checkpoint_folders(folder)) == 2


@pytest.mark.ranks
def test_several_ranks_that_find_all_checkpoints_damaged_end_and_start_over_next_time(
    corpus: Path, tmp_path: Path
) -> None:
    config = tiny_run(corpus, steps=4, hardware__sharding="fsdp", hardware__devices=2)

    def work(rank: int) -> str:
        try:
            return fit(config, tmp_path).status
        except RunError as error:
            return str(error)

    damaged = tmp_path / "checkpoints" / "step-00000002"
    damaged.mkdir(parents=True)
    assert "were damaged: removed" in on_ranks(lambda rank: work(rank) if rank == 0 else None)[0][1]
    assert [told for _, told in on_ranks(work)] == ["complete", "complete"]


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_that_carries_code_is_refused_and_the_code_not_run(
    interrupted: tuple[RunConfig, Path], tmp_path: Path
) -> None:
    config, folder = interrupted
    for checkpoint in checkpoint_folders(folder):
        torch.save({"global_step": Trap(tmp_path / "ran")}, checkpoint / state.TRAINER)
        (checkpoint / "manifest.json").write_text(
            json.dumps(
                {
                    "files": state.manifest(checkpoint, rank=0, group=None),
                    "run": run_id(config),
                    "name": checkpoint.name,
                }
            )
        )
    assert pickle.dumps(Trap(tmp_path / "ran"))
    with pytest.raises(RunError, match="cannot be loaded"):
        fit(config, folder)
    assert not (tmp_path / "ran").exists()


def test_at_most_two_checkpoints_are_kept(corpus: Path, tmp_path: Path) -> None:
    def killed() -> None:
        before_the_final_model()
        fit(tiny_run(corpus, steps=8), tmp_path)

    in_child(killed)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000008", "step-00000006"]


def test_a_final_model_that_stands_already_is_not_saved_again(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(corpus, "mhc", steps=2)

    def killed() -> None:
        after_the_final_model()
        fit(config, tmp_path)

    assert in_child(killed) == (KILLED, None)
    stands = (tmp_path / FINAL).stat().st_ino
    summary = fit(config, tmp_path)
    assert (tmp_path / FINAL).stat().st_ino == stands
    assert saved_weight_digest(tmp_path / FINAL) == summary.weight_digest


def other_weights(path: Path) -> None:
    save_file({name: each + 1 for name, each in load_file(path).items()}, path)


@pytest.mark.parametrize("harm", [other_weights, lambda path: os.truncate(path, 99), Path.unlink])
def test_a_final_model_with_other_weights_is_replaced(
    corpus: Path, tmp_path: Path, undisturbed: tuple[TrainingSummary, Path], harm: Callable[[Path], object]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed[1], folder)
    (folder / "training.json").unlink()
    harm(folder / FINAL / "model.safetensors")
    fit(run_with_dropout(corpus), folder)
    assert saved_weight_digest(folder / FINAL) == undisturbed[0].weight_digest

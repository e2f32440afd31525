"""A run is evaluated with the weights that it was trained to; one that has lost them trains again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluation_toy as toy
import pytest
from forked import on_ranks
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import RunConfig, run_folder, save_run_config
from mhc_bench.errors import RunError
from mhc_bench.files import write_json
from mhc_bench.model import checkpoint
from mhc_bench.model.saving import FINAL, find_damage, saved_weight_digest
from mhc_bench.suite.evaluating import evaluate_run
from mhc_bench.suite.exporting import export
from mhc_bench.suite.retraining import put_back_if_damaged
from mhc_bench.suite.worker import complete_run
from mhc_bench.training import fit, read_summary


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def two_runs(corpus: Path) -> list[RunConfig]:
    return [
        tiny_run(corpus, "mhc", steps=4, logging__milestones=[2]),
        tiny_run(corpus, "mhc", steps=4, seed=1),
    ]


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs with their records."""
    root = tmp_path_factory.mktemp("finished")
    for run in two_runs(corpus):
        save_run_config(run, run_folder(root, run))
        complete_run(run, run_folder(root, run))
    return root


@pytest.fixture
def trained(finished: Path, corpus: Path, tmp_path: Path) -> list[tuple[RunConfig, Path]]:
    """Both runs as they were before they had records."""
    shutil.copytree(finished, tmp_path / "runs", symlinks=True)
    found = [(run, run_folder(tmp_path / "runs", run)) for run in two_runs(corpus)]
    for _, folder in found:
        (folder / "record.json").unlink()
    return found


def cut(name: str) -> Callable[[Path, Path], object]:
    return lambda final, other: os.truncate(final / name, 99)


def gone(name: str) -> Callable[[Path, Path], object]:
    return lambda final, other: (final / name).unlink()


def swapped(final: Path, other: Path) -> None:
    final.rename(final.with_name("aside"))
    other.rename(final)
    final.with_name("aside").rename(other)


HARMS = {
    "weights cut": cut("model.safetensors"),
    "weights gone": gone("model.safetensors"),
    "config cut": cut("config.json"),
    "config gone": gone("config.json"),
    "tokenizer cut": cut("tokenizer.json"),
    "folder gone": lambda final, other: shutil.rmtree(final),
    "swapped": swapped,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_run_without_its_final_model_trains_again_to_the_same_weights(
    trained: list[tuple[RunConfig, Path]],
    harm: Callable[[Path, Path], object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [read_summary(folder) for _, folder in trained]
    harm(*(folder / FINAL for _, folder in trained))
    for run, folder in trained:
        complete_run(run, folder)
    again = [read_summary(folder) for _, folder in trained]
    for old, new, (_, folder) in zip(before, again, trained, strict=True):
        assert old is not None and new is not None
        assert (new.weight_digest, new.validation) == (old.weight_digest, old.validation)
        assert not find_damage(folder / FINAL, new.weight_digest)
        assert json.loads((folder / "record.json").read_text())["digests"]["weights"] == new.weight_digest
    harmed = 2 if harm is swapped else 1
    assert [new.restarts for new in again if new] == [1, harmed - 1]
    told = [line for line in capsys.readouterr().out.splitlines() if line.endswith("training again")]
    assert len(told) == harmed and str(trained[0][1] / FINAL) in told[0]


def test_another_runs_model_is_not_exported(trained: list[tuple[RunConfig, Path]], tmp_path: Path) -> None:
    (_, folder), (_, other) = trained
    export(folder, tmp_path / "whole")
    swapped(folder / FINAL, other / FINAL)
    with pytest.raises(RunError, match="its weights are not those of the run"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_goes_on_from_a_milestone_where_there_is_one(trained: list[tuple[RunConfig, Path]]) -> None:
    (run, folder), (other_run, other) = trained
    for each in (folder, other):
        gone("config.json")(each / FINAL, each)
    put_back_if_damaged(run, folder)
    put_back_if_damaged(other_run, other)
    assert [path.name for path in sorted((folder / "checkpoints").glob("step-*"))] == ["step-00000002"]
    assert not list((other / "checkpoints").glob("step-*"))
    for each in (folder, other):
        assert not (each / "training.json").exists() and not (each / FINAL).exists()


def test_a_whole_model_is_left_alone(trained: list[tuple[RunConfig, Path]]) -> None:
    run, folder = trained[0]
    before = (folder / "training.json").stat().st_mtime_ns, (folder / FINAL).stat().st_ino
    complete_run(run, folder)
    assert before == ((folder / "training.json").stat().st_mtime_ns, (folder / FINAL).stat().st_ino)


@pytest.mark.parametrize("why", ["record.json", "evaluation.json", "diverged"])
def test_a_run_whose_model_is_no_longer_needed_is_not_put_back(
    trained: list[tuple[RunConfig, Path]], why: str
) -> None:
    run, folder = trained[0]
    gone("config.json")(folder / FINAL, folder)
    if why == "diverged":
        summary = json.loads((folder / "training.json").read_text())
        write_json(folder / "training.json", summary | {"status": "diverged"})
    else:
        (folder / why).touch()
    put_back_if_damaged(run, folder)
    assert (folder / "training.json").exists() and (folder / FINAL).exists()


def test_a_model_that_cannot_be_read_for_now_is_left_alone(
    trained: list[tuple[RunConfig, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = trained[0]

    def away(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "file_digest", away)
    with pytest.raises(RunError, match=r"cannot be read \(Input/output error\): nothing was changed"):
        complete_run(run, folder)
    assert (folder / "training.json").exists() and (folder / FINAL / "config.json").exists()


def test_a_model_that_was_saved_before_a_kill_and_then_harmed_is_saved_again(
    trained: list[tuple[RunConfig, Path]],
) -> None:
    run, folder = trained[0]
    (folder / "training.json").unlink()
    gone("config.json")(folder / FINAL, folder)
    assert not find_damage(folder / FINAL, fit(run, folder).weight_digest)


@pytest.mark.ranks
def test_ranks_of_a_launcher_end_with_one_line_and_train_again_next_time(
    corpus: Path, tmp_path: Path
) -> None:
    config = tiny_run(corpus, steps=2, hardware__sharding="fsdp", hardware__devices=2)
    folder = run_folder(tmp_path, config)
    save_run_config(config, folder)

    def work(rank: int) -> Any:
        try:
            complete_run(config, folder)
        except RunError as error:
            return str(error)
        return saved_weight_digest(folder / FINAL)

    first = on_ranks(work)[0][1]
    (folder / "record.json").unlink()
    (folder / FINAL / "config.json").unlink()
    (_, said) = on_ranks(lambda rank: work(rank) if rank == 0 else None)[0]
    assert said.endswith("removed; the same command trains again") and "\n" not in said
    assert [told for _, told in on_ranks(work)] == [first, first]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    """A run that is as if trained, with one task to be evaluated on."""
    config = toy.run_config("mhc", tasks=("world_piqa",))
    folder = toy.trained(config, tmp_path_factory.mktemp("evaluated"))
    write_json(
        folder / "training.json", toy.TRAINING | {"weight_digest": saved_weight_digest(folder / FINAL)}
    )
    return config, folder


def test_other_weights_than_the_run_was_trained_to_are_not_evaluated(
    evaluated: tuple[RunConfig, Path], tmp_path: Path
) -> None:
    config, folder = evaluated
    evaluate_run(config, folder, tmp_path / "own")
    assert (tmp_path / "own" / "evaluation.json").exists()
    other = toy.trained(config, tmp_path / "other", seed=1)
    shutil.copy(folder / "training.json", other)
    with pytest.raises(RunError, match="its weights are not those of the run"):
        evaluate_run(config, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.ranks
def test_no_rank_evaluates_other_weights(evaluated: tuple[RunConfig, Path], tmp_path: Path) -> None:
    config, folder = evaluated
    other = toy.trained(config, tmp_path / "other", seed=1)
    shutil.copy(folder / "training.json", other)

    def work(rank: int) -> str:
        with pytest.raises(RunError) as caught:
            evaluate_run(config, other, tmp_path / "out")
        return str(caught.value)

    config.hardware.devices = 2
    try:
        told = [said for _, said in on_ranks(work)]
    finally:
        config.hardware.devices = 1
    assert all("its weights are not those of the run" in said for said in told)
    assert not (tmp_path / "out").exists()

"""What has its name is on disk: a power cut leaves the old or the new, whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
from pathlib import Path

import pytest
from tiny_runs import tiny_run, write_corpus

from mhc_bench import files
from mhc_bench.training import fit


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | str]]:
    """In their order: inodes written to disk, names given, names of folders removed."""
    done: list[tuple[str, int | str]] = []
    sync, remove = os.fsync, shutil.rmtree
    renames = {"rename": os.rename, "replace": os.replace}

    def synced(handle: int) -> None:
        done.append(("sync", os.fstat(handle).st_ino))
        sync(handle)

    def named(how: str, source: Path, target: Path) -> None:
        renames[how](source, target)
        done.append(("name", Path(target).name))

    def removed(folder: Path, ignore_errors: bool = False) -> None:
        done.append(("remove", Path(folder).name))
        remove(folder, ignore_errors)

    monkeypatch.setattr(os, "fsync", synced)
    for how in renames:
        monkeypatch.setattr(os, how, functools.partial(named, how))
    monkeypatch.setattr(shutil, "rmtree", removed)
    return done


def assert_durable(path: Path, done: list[tuple[str, int | str]]) -> None:
    """Content before the name, the folder that holds the name after it."""
    at = done.index(("name", path.name))
    content = {("sync", each.stat().st_ino) for each in (path, *path.rglob("*"))}
    assert content <= set(done[:at]) and ("sync", path.parent.stat().st_ino) in done[at:]


def test_a_power_cut_leaves_the_final_model_or_a_checkpoint(
    corpus: Path, tmp_path: Path, on_disk: list[tuple[str, int | str]]
) -> None:
    fit(tiny_run(corpus, steps=4, logging__milestones=[4]), tmp_path)
    before = on_disk[: on_disk.index(("remove", "step-00000002"))]
    for path in ("checkpoints/final", "checkpoints/step-00000004", "training.json"):
        assert_durable(tmp_path / path, before)
    assert before.index(("name", "final")) < before.index(("name", "training.json"))


def test_an_older_model_goes_when_the_new_one_is_on_disk(
    corpus: Path, tmp_path: Path, on_disk: list[tuple[str, int | str]]
) -> None:
    folder = tmp_path / "checkpoints" / "final"
    folder.mkdir(parents=True)
    (folder / "older").touch()
    fit(tiny_run(corpus, steps=2), tmp_path)
    removed = next(at for at, (what, name) in enumerate(on_disk) if what == "remove" and ".old" in str(name))
    assert_durable(folder, on_disk[:removed])


def test_a_folder_is_filled_on_disk_before_it_has_its_name(
    tmp_path: Path, on_disk: list[tuple[str, int | str]]
) -> None:
    with files.atomic_folder(tmp_path / "new") as staged:
        (staged / "inner").mkdir()
        (staged / "inner" / "file").write_text("content")
    assert_durable(tmp_path / "new", on_disk)


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_writes_no_folders_to_disk_is_no_error_and_a_broken_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refused: bool
) -> None:
    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="Input/output") if refused else contextlib.nullcontext():
        files.write_text(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text() == "a"

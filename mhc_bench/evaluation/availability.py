"""What an evaluation needs beyond this package: which data and packages are here, how to get the rest."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from packaging.requirements import Requirement

from mhc_bench.errors import UsageError
from mhc_bench.evaluation.tasks import (
    check_overlap,
    check_tasks,
    lm_eval_folders,
    member_name,
    needing_data,
    required_packages,
)
from mhc_bench.resources import tasks_dir

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

FETCH = "python -m mhc_bench.evaluation.fetch"
EXTRA = "pip install 'mhc-bench[math]'"
_TRUE = {"1", "ON", "YES", "TRUE"}
_COMMIT = re.compile(r"[@/\\]([0-9a-f]{40})(?=[/\\])")


@dataclass(frozen=True)
class DataSet:
    """A data set of the Hugging Face hub, and which configuration of it."""

    path: str
    part: str | None


def task_manager(
    names: Sequence[str], folder: Path | None = None, metadata: Mapping[str, Any] | None = None
) -> TaskManager:
    """lm-eval's index of our tasks and of those folders of its own that `names` are built on."""
    from lm_eval.tasks import TaskManager

    paths = [*lm_eval_folders(names, folder), folder or tasks_dir()]
    # it warns of every tag that tasks of two folders share
    with _silenced("lm_eval"):
        return TaskManager(include_path=paths, include_defaults=False, metadata=dict(metadata or {}))


def needed_data(names: Iterable[str], folder: Path | None = None) -> list[DataSet]:
    """The data sets of `names`, each once; found without loading any."""
    asked = needing_data(names, folder)
    if not asked:
        return []
    index = task_manager(asked, folder).task_index
    configs = (config for name in asked for config in _leaves(name, index))
    found = [DataSet(config["dataset_path"], config.get("dataset_name")) for config in configs]
    return list(dict.fromkeys(found))


def _leaves(name: str, index: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configurations of all tasks below a name."""
    entry = index[name]
    if entry.cfg is None:
        members: Sequence[Any] = sorted(entry.tags)
    elif "group" in entry.cfg:
        members = entry.cfg["task"]
    else:
        yield entry.cfg
        return
    for member in members:
        yield from _leaves(member_name(member), index)


def missing_data(names: Iterable[str], folder: Path | None = None) -> list[DataSet]:
    """Those needed data sets that cannot be loaded; offline, which is the default, those not in the cache."""
    unreachable: set[str] = set()
    return [each for each in needed_data(names, folder) if not _loadable(each, unreachable)]


def _loadable(each: DataSet, unreachable: set[str]) -> bool:
    """`unreachable` keeps the data sets without an answer: each is asked for once, not once per part."""
    import datasets

    if each.path in unreachable:
        return False
    try:
        with quiet_datasets(), offline():
            datasets.load_dataset_builder(each.path, each.part)
    except ValueError:
        # the data set is here, this part of it is not
        return False
    except OSError:
        unreachable.add(each.path)
        return False
    return True


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """No connections, unless HF_HUB_OFFLINE=0 asks for them: without a network each try takes half a minute.

    The libraries read that setting when they are imported, which something else may have done before us.
    """
    import datasets.config
    import huggingface_hub.constants

    if os.environ.get("HF_HUB_OFFLINE", "1").upper() not in _TRUE:
        yield
        return
    with (
        mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
        mock.patch.object(datasets.config, "HF_HUB_OFFLINE", True),
    ):
        yield


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """No bars, and no warning that the cached version is used: that is what was asked for."""
    import datasets

    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with _silenced("datasets"):
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _silenced(library: str) -> Iterator[None]:
    """Only errors of a library are said."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def missing_packages(names: Iterable[str], folder: Path | None = None) -> list[str]:
    """Requirements of `names` that this installation does not meet."""
    return [text for text in required_packages(names, folder) if not _installed(Requirement(text))]


def _installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def check_runnable(names: Sequence[str]) -> None:
    """Refuse an evaluation that cannot run on this machine; meant to be called before training.

    Raises:
        UsageError: an unknown task, two that exclude each other, or everything that is missing in one line.
    """
    check_tasks(names)
    check_overlap(names)
    lacking = gap(names)
    if lacking:
        raise UsageError(f"the evaluation of {', '.join(names)} cannot run here: it needs {lacking}")


def gap(names: Sequence[str], folder: Path | None = None) -> str | None:
    """What keeps `names` from running here and how to get it, in one line; None where nothing does."""
    packages, data = missing_packages(names, folder), missing_data(names, folder)
    parts = []
    if packages:
        parts.append(f"packages {', '.join(packages)} (get them with: {EXTRA})")
    if data:
        asked = " ".join(needing_data(names, folder))
        parts.append(f"data sets {in_words(data)} (fetch them, with a network, by: {FETCH} {asked})")
    return " and ".join(parts) or None


def in_words(data: Iterable[DataSet]) -> str:
    """Data sets by name, with the number of their parts where there are several."""
    counts: dict[str, int] = {}
    for each in data:
        counts[each.path] = counts.get(each.path, 0) + 1
    return ", ".join(path if count == 1 else f"{path} ({count} parts)" for path, count in counts.items())


def data_revision(splits: object) -> str | None:
    """The commit of a loaded data set, where its own notes or its place in the hub's cache tell it."""
    if not isinstance(splits, Mapping):
        return None
    for split in splits.values():
        info, files = getattr(split, "info", None), getattr(split, "cache_files", [])
        places = [*(getattr(info, "download_checksums", None) or {}), *(file["filename"] for file in files)]
        for place in places:
            if found := _COMMIT.search(place):
                return found[1]
    return None

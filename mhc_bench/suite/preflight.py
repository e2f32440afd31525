"""What cannot work is found here, before anything is written: model, variant, data, tasks, hardware."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mhc_bench.config import DataConfig, HardwareConfig, RunConfig
from mhc_bench.errors import UsageError

if TYPE_CHECKING:
    from mhc_bench.data import TokenSource
    from mhc_bench.training.build import Vocabulary


@dataclass(frozen=True)
class Counts:
    """Size of one variant of a suite's model."""

    parameters: dict[str, int]
    flops_per_token: int
    vocabulary: Vocabulary


def preflight(runs: Iterable[RunConfig]) -> dict[tuple[str, str], Counts]:
    """Check what a suite's runs need, and count its models on the meta device.

    Returns:
        (arm, variant name) -> counts.

    Raises:
        UsageError: an option, size, path or task that cannot work.
    """
    from mhc_bench.data import open_source
    from mhc_bench.evaluation import check_tasks
    from mhc_bench.training.build import vocabulary_of

    runs = list(runs)
    distinct = distinct_runs(runs)
    # data first: they can be fetched on any machine
    sources = {key: open_source(data) for key, data in _sources(distinct).items()}
    known = {key: vocabulary_of(source) for key, source in sources.items()}
    for key, length, seeds in _streams(runs):
        check_rows(sources[key], length, seeds)
    for run in distinct.values():
        check_tasks(run.evaluation.tasks)
        _check_loggers(run)
    return {key: _count(run, known[str(run.data)]) for key, run in distinct.items()}


def _streams(runs: list[RunConfig]) -> list[tuple[str, int, list[int]]]:
    """Data, sequence length, and the seeds with which both are used together."""
    seeds: dict[tuple[str, int], set[int]] = {}
    for run in runs:
        seeds.setdefault((str(run.data), run.training.sequence_length), set()).add(run.seed)
    return [(data, length, sorted(each)) for (data, length), each in seeds.items()]


def check_rows(source: TokenSource, sequence_length: int, seeds: list[int]) -> None:
    """Refuse data without a row to train on, one to validate on, or as many different rows as seeds.

    Raises:
        UsageError: naming what there is and what was expected.
    """
    length = sequence_length + 1
    source.validation_rows(length)
    rows = {source.train_row(seeds[0], index, length).tobytes() for index in range(len(seeds))}
    if len(rows) < len(seeds):
        raise UsageError(
            f"seeds: {len(seeds)} seeds and {len(rows)} different rows of {length} tokens to train on: "
            "expected no more seeds than rows"
        )


def _check_loggers(run: RunConfig) -> None:
    if not run.logging.loggers:
        return
    from mhc_bench.training.loggers import logger_arguments

    for logger in run.logging.loggers:
        logger_arguments(logger, Path())


def count(runs: Iterable[RunConfig], flops_rule: int | None = None) -> dict[tuple[str, str], Counts]:
    """The counts of `preflight` without its checks; data that declare their vocabulary need not be there.

    Args:
        flops_rule: count FLOPs as an older version did; None: as today.

    Raises:
        UsageError: an option, size or path that cannot work.
    """
    distinct = distinct_runs(runs)
    known = {key: known_vocabulary(data) for key, data in _sources(distinct).items()}
    return {key: _count(run, known[str(run.data)], flops_rule) for key, run in distinct.items()}


def distinct_runs(runs: Iterable[RunConfig]) -> dict[tuple[str, str], RunConfig]:
    """(arm, variant name) -> one of its runs, which differ in the seed alone."""
    return {(run.arm, run.variant_name): run for run in runs}


def known_vocabulary(data: DataConfig) -> Vocabulary:
    """The declared vocabulary of data, or that of their source, which is then opened."""
    from mhc_bench.data import open_source
    from mhc_bench.training.build import declared_vocabulary, vocabulary_of

    return declared_vocabulary(data) or vocabulary_of(open_source(data))


def _sources(runs: dict[tuple[str, str], RunConfig]) -> dict[str, DataConfig]:
    return {str(run.data): run.data for run in runs.values()}


def check_evaluations(runs: Iterable[RunConfig]) -> None:
    """Refuse to train for an evaluation that cannot run on this machine.

    Raises:
        UsageError: naming what is missing and the commands that get it.
    """
    from mhc_bench.evaluation import check_runnable

    for tasks in dict.fromkeys(tuple(run.evaluation.tasks) for run in runs):
        check_runnable(tasks)


def check_folder(option: str, folder: Path) -> None:
    """Refuse a place for results where none can be written; it need not exist yet.

    Raises:
        UsageError: naming the option.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise UsageError(f"{option} {folder}: {there} is a file: expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {folder}: expected a folder that can be written to, and {there} cannot")


def check_machine(hardware: HardwareConfig) -> None:
    """Refuse to start here what this machine cannot run.

    Raises:
        UsageError: naming the devices that are missing.
    """
    if hardware.accelerator == "cpu":
        return
    import torch

    found = torch.cuda.device_count()
    if found < hardware.devices:
        raise UsageError(
            f"hardware asks for {hardware.devices} GPU(s) per node and this machine has {found}: "
            "expected hardware=cpu or hardware=cpu-fsdp here"
        )


def check_nodes(hardware: HardwareConfig) -> None:
    """Refuse to start from here what needs further machines.

    Raises:
        UsageError: naming what starts the ranks of several nodes.
    """
    if hardware.nodes > 1:
        raise UsageError(
            f"hardware.nodes is {hardware.nodes}: expected launcher=slurm, or torchrun on each node "
            "(docs/hardware.md)"
        )


def _count(run: RunConfig, vocabulary: Vocabulary, flops_rule: int | None = None) -> Counts:
    from mhc_bench.model import FLOPS_RULE, count_parameters, flops_per_token
    from mhc_bench.training.build import build_for

    model = build_for(run, vocabulary)
    flops = flops_per_token(model, run.training.sequence_length, flops_rule or FLOPS_RULE)
    return Counts(count_parameters(model), flops, vocabulary)

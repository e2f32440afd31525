"""Which implementation of the operations a run computes with: decided once, at its start, and kept."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from transformers import PreTrainedModel

from mhc_bench.config.schema import RunConfig
from mhc_bench.errors import RunError
from mhc_bench.files import write_json
from mhc_bench.model import Choice, Workload, chosen, residual_connections, use_operations

OPERATIONS_FILE = "operations.json"


def choice_for(config: RunConfig, model: PreTrainedModel) -> Choice:
    """The implementation that `hardware.operations` stands for in this run."""
    connections = list(residual_connections(model).values())
    training, hardware = config.training, config.hardware
    tokens = training.steps * training.batch_tokens // (hardware.devices * hardware.nodes)
    streams = getattr(connections[0], "streams", 1)
    return chosen(hardware.operations, Workload(hardware.accelerator, tokens * len(connections), streams))


def settle(config: RunConfig, model: PreTrainedModel, run_dir: Path, quiet: bool) -> RunConfig:
    """`config` with `auto` replaced by what it meant at the start of the run, on every rank and every resume.

    A run that has to go on with an implementation that a machine lacks ends there with one line.

    Raises:
        UsageError: this machine lacks the implementation that the run was started with.
        RunError: the note of the choice is damaged.
    """
    path = run_dir / OPERATIONS_FILE
    if not path.exists():
        choice = choice_for(config, model)
        write_json(path, dataclasses.asdict(choice))
        if not quiet:
            print(f"operations: {choice.operations} ({choice.reason})", file=sys.stderr)
    if config.hardware.operations == "auto":
        config = with_operations(config, read_choice(path).operations)
        use_operations(model, config.hardware.operations)
    return config


def with_operations(config: RunConfig, name: str) -> RunConfig:
    """`config` with `hardware.operations` set to `name`."""
    hardware = dataclasses.replace(config.hardware, operations=name)  # type: ignore[arg-type]  # one of its names
    return dataclasses.replace(config, hardware=hardware)


def read_choice(path: Path) -> Choice:
    """The choice that a run wrote down.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return Choice(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}): remove it and choose hardware.operations") from error

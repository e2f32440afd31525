"""Lightning loggers by configuration."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from mhc_bench.config.schema import LoggerConfig
from mhc_bench.errors import UsageError, choose

SHIPPED = ("CSVLogger", "CometLogger", "MLFlowLogger", "NeptuneLogger", "TensorBoardLogger", "WandbLogger")
LOGS = "logs"


def logger_class(path: str) -> type[Logger]:
    """A class of `lightning.pytorch.loggers` by its name, any other by its dotted path.

    Raises:
        UsageError: no such class.
    """
    if "." not in path:
        shipped: type[Logger] = getattr(loggers, choose("logger", path, SHIPPED))
        return shipped
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"logging.loggers: cannot import {path!r} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Logger)):
        raise UsageError(f"logging.loggers: {path!r} is no Lightning logger")
    return found


def make_logger(config: LoggerConfig, run_dir: Path) -> Logger:
    """One logger; those that write files do so under `logs/` of the run unless told otherwise.

    Raises:
        UsageError: no such class, or arguments that it does not take.
    """
    kind = logger_class(config.class_path)
    options: dict[str, Any] = (
        {"save_dir": str(run_dir / LOGS)} if issubclass(kind, (CSVLogger, TensorBoardLogger)) else {}
    )
    if options:
        options |= {"name": kind.__name__, "version": ""}
    try:
        return kind(**(options | config.options))
    except (TypeError, ModuleNotFoundError) as error:
        raise UsageError(f"logging.loggers: {config.class_path}: {error}") from error

"""Lightning loggers by configuration."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from mhc_bench.config.schema import LoggerConfig
from mhc_bench.errors import UsageError, choose

SHIPPED = ("CSVLogger", "CometLogger", "MLFlowLogger", "NeptuneLogger", "TensorBoardLogger", "WandbLogger")
LOGS = "logs"
PACKAGES = {
    "CometLogger": "comet_ml",
    "MLFlowLogger": "mlflow",
    "NeptuneLogger": "neptune",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
}
"""Of a shipped logger the package that it needs."""


def logger_class(path: str) -> type[Logger]:
    """A class of `lightning.pytorch.loggers` by its name, any other by its dotted path.

    Raises:
        UsageError: no such class.
    """
    if "." not in path:
        package = PACKAGES.get(choose("logger", path, SHIPPED))
        if package and importlib.util.find_spec(package) is None:
            raise UsageError(f"logging.loggers: {path} needs the package {package}, which is not installed")
        shipped: type[Logger] = getattr(loggers, path)
        return shipped
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"logging.loggers: cannot import {path!r} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Logger)):
        raise UsageError(f"logging.loggers: {path!r} is no Lightning logger")
    return found


def logger_arguments(config: LoggerConfig, run_dir: Path) -> tuple[type[Logger], dict[str, Any]]:
    """A logger's class and arguments; those that write files do so under `logs/` unless told otherwise.

    Raises:
        UsageError: no such class, or arguments that it does not take.
    """
    kind = logger_class(config.class_path)
    options = dict(config.options)
    if issubclass(kind, (CSVLogger, TensorBoardLogger)):
        options = {"save_dir": str(run_dir / LOGS), "name": kind.__name__, "version": ""} | options
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as error:
        raise UsageError(f"logging.loggers: {config.class_path}: {error}") from error
    return kind, options


def make_logger(config: LoggerConfig, run_dir: Path) -> Logger:
    """One logger of a run.

    Raises:
        UsageError: as `logger_arguments`, or a package that the logger needs is not installed.
    """
    kind, options = logger_arguments(config, run_dir)
    try:
        return kind(**options)
    except ModuleNotFoundError as error:
        raise UsageError(f"logging.loggers: {config.class_path}: {error}") from error

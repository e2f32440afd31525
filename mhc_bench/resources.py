"""Where the shipped configurations and tasks lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def resource_root() -> Path:
    """The folder that holds `configs/` and `tasks/`."""
    packaged = PACKAGE / "_resources"
    return packaged if packaged.is_dir() else PACKAGE.parent


def configs_dir() -> Path:
    """The folder of the shipped configurations."""
    return resource_root() / "configs"


def tasks_dir() -> Path:
    """The folder of the shipped lm-eval tasks."""
    return resource_root() / "tasks"

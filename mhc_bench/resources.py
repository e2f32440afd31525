"""What is installed: the shipped configurations and tasks, and the variants that other packages register.

Configurations and tasks lie beside the package in a checkout, inside it in a wheel.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
VARIANT_ENTRY_POINTS = "mhc_bench.variants"
"""The entry-point group of other packages' variants."""


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


def installed_variants() -> dict[str, str]:
    """Name -> `module:Class` of the variants that other packages register."""
    return {point.name: point.value for point in entry_points(group=VARIANT_ENTRY_POINTS)}

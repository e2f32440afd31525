"""A paired benchmark of residual connections for language models; importing it does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhc_bench.model import graft, load_run
    from mhc_bench.residual import ResidualConnection, register_variant

__version__ = "0.1.0"

_HOMES = {
    "graft": "mhc_bench.model",
    "load_run": "mhc_bench.model",
    "ResidualConnection": "mhc_bench.residual",
    "register_variant": "mhc_bench.residual",
}

__all__ = ["ResidualConnection", "__version__", "graft", "load_run", "register_variant"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mhc_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

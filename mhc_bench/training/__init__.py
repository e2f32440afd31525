"""Training one run: `fit` resumes itself and leaves `training.json` and the final model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mhc_bench.training.summary import TrainingSummary, read_summary

if TYPE_CHECKING:
    from mhc_bench.training.fitting import fit

__all__ = ["TrainingSummary", "fit", "read_summary"]


def __getattr__(name: str) -> Any:
    # torch and Lightning come with `fit` alone
    if name == "fit":
        from mhc_bench.training.fitting import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Sources of tokens: the embedded world and real text, and the LightningDataModule over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mhc_bench.data.source import TokenSource, default_cache
from mhc_bench.errors import UsageError, choose

if TYPE_CHECKING:
    from mhc_bench.config.schema import DataConfig

__all__ = ["TokenSource", "default_cache", "open_source"]


def open_source(data: DataConfig, cache_dir: Path | None = None) -> TokenSource:
    """The source that `data` describes, tokenised and ready; `cache_dir` None means `default_cache()`.

    Raises:
        UsageError: for an unknown kind, a missing path, too little text, or shards that are not there.
    """
    from mhc_bench.config.schema import DATA_KINDS, ShardsConfig, TextConfig, WorldConfig

    choose("data kind", data.kind, DATA_KINDS)
    if isinstance(data, WorldConfig):
        from mhc_bench.data.world.source import WorldSource

        return WorldSource(data)
    if isinstance(data, ShardsConfig):
        raise UsageError(
            f"no token shards of {data.source} at {data.path}: "
            f"fetch them with mhc-bench prepare {Path(data.path).name}"
        )
    from mhc_bench.data.text import TextSource

    assert isinstance(data, TextConfig)
    return TextSource(data, cache_dir or default_cache())

"""Sources of tokens: the embedded world, real text, token shards, and the LightningDataModule over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mhc_bench.data.source import TokenSource
from mhc_bench.errors import choose
from mhc_bench.files import default_cache

if TYPE_CHECKING:
    from mhc_bench.config.schema import DataConfig

__all__ = ["TokenSource", "default_cache", "open_source"]


def open_source(data: DataConfig, cache_dir: Path | None = None) -> TokenSource:
    """The source that `data` describes, tokenised and ready; `cache_dir` None means `default_cache()`.

    Raises:
        UsageError: for an unknown kind, a missing path, too little text or shards that are not prepared.
        RunError: for a damaged shard.
    """
    from mhc_bench.config.schema import DATA_KINDS, ShardsConfig, TextConfig, WorldConfig

    choose("data kind", data.kind, DATA_KINDS)
    if isinstance(data, WorldConfig):
        from mhc_bench.data.world.source import WorldSource

        return WorldSource(data)
    if isinstance(data, ShardsConfig):
        from mhc_bench.data.shards import ShardSource

        return ShardSource(data, cache_dir or default_cache())
    from mhc_bench.data.text import TextSource

    assert isinstance(data, TextConfig)
    return TextSource(data, cache_dir or default_cache())

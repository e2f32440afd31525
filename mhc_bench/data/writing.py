"""Writing one pair of shards, training and validation: whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy.typing as npt

from mhc_bench.data.encoding import Block
from mhc_bench.data.manifest import Shard, Split


class ShardFile:
    """One shard under a temporary name beside its own."""

    def __init__(self, folder: Path, split: Split, number: int) -> None:
        self.path, self.split = folder / f"{split}-{number:05}.bin", split
        self.temporary = self.path.with_suffix(".tmp")
        self.handle: BinaryIO = self.temporary.open("wb")
        self.hash, self.tokens = hashlib.sha256(), 0

    def add(self, ids: npt.NDArray[Any]) -> None:
        """Append token ids."""
        content = ids.tobytes()
        self.handle.write(content)
        self.hash.update(content)
        self.tokens += len(ids)

    def close(self) -> Shard | None:
        """Give the file its name; an empty one goes."""
        self.handle.flush()
        os.fsync(self.handle.fileno())
        if not self.tokens:
            self.discard()
            return None
        self.handle.close()
        self.temporary.replace(self.path)
        return Shard(self.path.name, self.split, self.tokens, self.hash.hexdigest())

    def discard(self) -> None:
        """Drop what is not whole."""
        self.handle.close()
        self.temporary.unlink(missing_ok=True)


class Part:
    """The training and the validation shard of one number, filled together. Use as a context manager."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.open(number)

    def open(self, number: int) -> None:
        """Begin the pair of that number."""
        self.train = ShardFile(self.folder, "train", number)
        self.validation = ShardFile(self.folder, "validation", number)

    @property
    def training_tokens(self) -> int:
        """Training tokens of this pair."""
        return self.train.tokens

    def add(self, block: Block) -> None:
        """Append a block to both."""
        self.train.add(block.train)
        self.validation.add(block.validation)

    def close(self) -> list[Shard]:
        """Finish both; those that hold tokens."""
        return [shard for shard in (self.train.close(), self.validation.close()) if shard is not None]

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.train.discard()
        self.validation.discard()

"""Per-item outcomes: the side file from which the scores of a record are recomputed."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from mhc_bench.errors import RunError
from mhc_bench.evidence import strict
from mhc_bench.evidence.parts import Count, Name, Part
from mhc_bench.evidence.record import Record

ITEMS_FILE = "items.json.gz"
"""Its name in a run folder, and among a record's side files."""
PUBLISHED_ITEMS = re.compile(r"^seed\d{1,10}(-\d{1,4})?\.items\.json\.gz$")
LARGEST_PACKED = 64 * 2**20
LARGEST_UNPACKED = 512 * 2**20
"""Bytes. MMLU's 14 042 items take under one MB."""


class TaskItems(Part):
    """The items of one task, in the order in which they were asked."""

    metric: str
    aggregation: str
    """How values become the task's score: `mean` for nearly all."""
    documents: tuple[Count, ...]
    """Number of each item within its task."""
    values: tuple[float | None, ...]
    """What each item scored; null where that is no number."""
    gold: tuple[float | None, ...] | None
    """Log-likelihood of each gold answer, in nats."""
    kinds: tuple[str, ...] | None
    """What kind of item each is, where the task has kinds."""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        for column in (self.values, self.gold, self.kinds):
            if column is not None and len(column) != len(self.documents):
                raise ValueError(f"{len(column)} entries for {len(self.documents)} items")
        return self


class Items(Part):
    """All items of a run."""

    schema_version: Literal[1]
    tasks: dict[Name, TaskItems] = Field(max_length=10_000)
    groups: dict[Name, tuple[Name, ...]]
    """Group that is one score -> its tasks."""


@dataclass(frozen=True)
class ItemFile:
    """The side file as it was read."""

    items: Items
    packed_digest: str
    """SHA-256 of the file."""
    digest: str
    """SHA-256 of its content, whatever compressed it."""


def items_path(record: Path) -> Path:
    """Where the items of a record lie: `items.json.gz` of a run, `seed<k>.items.json.gz` when published."""
    return record.with_name(ITEMS_FILE if record.name == "record.json" else f"{record.stem}.{ITEMS_FILE}")


def unpack_items(data: bytes) -> ItemFile:
    """Read the side file's bytes.

    Raises:
        ValueError: damaged, too large, or not of the schema (a `ValidationError` is one too).
    """
    content = strict.gunzip(data, LARGEST_UNPACKED)
    strict.parse(content)
    items = Items.model_validate_json(content)
    return ItemFile(items, hashlib.sha256(data).hexdigest(), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class ItemStore:
    """Where the per-item outcomes of records lie; read when they are asked for."""

    files: Mapping[str, Path] = field(default_factory=dict)
    """Digest of a record -> its side file."""

    def of(self, record: Record) -> Items | None:
        """What every item of a run scored; None where the record has no such file.

        Raises:
            RunError: the file is damaged, or another one than the record was made from.
        """
        digest = record.evaluation.items if record.evaluation else None
        path = self.files.get(record.digest)
        return None if digest is None or path is None else _read_items(path, digest)


@functools.lru_cache(maxsize=256)
def _read_items(path: Path, digest: str) -> Items:
    try:
        if (size := path.stat().st_size) > LARGEST_PACKED:
            raise ValueError(f"{size} bytes, at most {LARGEST_PACKED} are read")
        found = unpack_items(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: no per-item outcomes: {' '.join(str(error).split())[:200]}") from error
    if found.digest != digest:
        raise RunError(f"{path}: other outcomes ({found.digest[:16]}) than its record's ({digest[:16]})")
    return found.items

"""The texts that shards are made of, in a fixed order that can be entered anywhere."""

from __future__ import annotations

import hashlib
import itertools
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mhc_bench.config.schema import ShardsConfig
from mhc_bench.data import hub
from mhc_bench.data.files import STDLIB, documents_of, text_files
from mhc_bench.errors import UsageError, closest


@dataclass(frozen=True)
class LocalCorpus:
    """Files of this machine, by name."""

    name: str
    """What the manifest calls it; no path of this machine."""
    revision: str
    """A digest of the files' names and sizes."""
    size: int | None
    """Bytes of all files."""
    root: Path
    files: tuple[Path, ...]
    field: str

    @classmethod
    def of(cls, config: ShardsConfig) -> LocalCorpus:
        """The files that `config.source` names.

        Raises:
            UsageError: when there are none.
        """
        root, files = text_files(config.source, config.suffixes)
        if not files:
            raise UsageError(
                f"data.source {config.source!r} holds no text: expected files ending in "
                f"{', '.join(config.suffixes)}"
            )
        sizes = {file.relative_to(root).as_posix(): file.stat().st_size for file in files}
        installed = config.source == STDLIB
        name = f"{STDLIB} of Python {platform.python_version()}" if installed else Path(config.source).name
        state = hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()
        return cls(name, f"files {state}", sum(sizes.values()), root, tuple(files), config.text_field)

    def texts(self, skip: int) -> Iterator[tuple[str, int]]:
        """The texts from position `skip` on, each with the bytes of the files that are finished before it."""
        return itertools.islice(self._all(), skip, None)

    def _all(self) -> Iterator[tuple[str, int]]:
        passed = 0
        for file in self.files:
            for document in documents_of(file, file.relative_to(self.root).as_posix(), self.field):
                yield document.text, passed
            passed += file.stat().st_size


@dataclass(frozen=True)
class HubCorpus:
    """A data set of the Hugging Face Hub."""

    config: ShardsConfig
    revision: str
    """The commit."""
    size: int | None = None

    @property
    def name(self) -> str:
        """Name and configuration of the data set."""
        return "/".join(part for part in (self.config.source, self.config.subset) if part)

    def texts(self, skip: int) -> Iterator[tuple[str, int]]:
        """The texts from row `skip` on; how many bytes lie before one is not known."""
        return ((text, 0) for text in hub.dataset_texts(self.config, self.revision, skip))


Corpus = LocalCorpus | HubCorpus
"""Texts in a fixed order, by position."""


def open_corpus(config: ShardsConfig) -> Corpus:
    """The texts that `config.source` names: local where such a file or folder exists, else on the Hub.

    Raises:
        UsageError: a path that does not exist.
        UnavailableError: a data set that is neither here nor to be had.
    """
    source = config.source
    if source == STDLIB or Path(source).expanduser().exists():
        return LocalCorpus.of(config)
    if hub.NAME.fullmatch(source) is None or source.count("/") != 1:
        folder = Path(source).expanduser().parent
        near = closest(
            Path(source).name, [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        )
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(
            f"data.source {source!r} does not exist: expected a file, a folder, {STDLIB!r} or a data set's "
            f"owner/name{hint}"
        )
    return HubCorpus(config, hub.dataset_commit(config))

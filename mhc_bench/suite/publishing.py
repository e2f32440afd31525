"""Records of runs copied to their place among the published ones, which are never written over."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from mhc_bench.config import RunConfig, run_folder
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence import Record, read_record, write_record
from mhc_bench.evidence.items import ITEMS_FILE, items_path
from mhc_bench.evidence.record import RESULTS
from mhc_bench.evidence.store import attempts
from mhc_bench.files import copy_file
from mhc_bench.suite.failures import scrubbed
from mhc_bench.suite.state import RECORD_FILE


@dataclass(frozen=True)
class Publication:
    """Where records are published, and why some of them may replace others there."""

    records: Path
    correction: str | None = None

    def add(self, folder: Path, run: RunConfig) -> None:
        """Publish what a run folder holds and the published records do not.

        Raises:
            RunError: another record is published for this run, and no reason was given to replace it.
        """
        first = run_folder(self.records, run).with_suffix(".json")
        there = published(first)
        digests = [read_record(path).digest for path in there]
        new = [path for path in editions(folder) if read_record(path).digest not in digests]
        if not new:
            return
        if read_record(new[0]).supersedes == (digests[-1] if digests else None):
            for number, path in enumerate(new, start=len(there) + 1):
                _copy(path, edition(first, number))
        # a published result stays what it is when an attempt elsewhere fails
        elif new[-1].name == RECORD_FILE and not _same_result(read_record(new[-1]), read_record(there[-1])):
            self._replace(there[-1], new[-1], edition(first, len(there) + 1))

    def _replace(self, old: Path, path: Path, target: Path) -> None:
        """Publish a result over a failed attempt made elsewhere or, with a reason, over a result."""
        replaced = read_record(old)
        why = scrubbed(self.correction) if self.correction and replaced.status in RESULTS else None
        if why is None and replaced.status in RESULTS:
            raise RunError(
                f"{old} holds another record, and records are immutable: publish to another folder, or "
                "say why this one replaces it (--correction WHY)"
            )
        _copy_items(path, target)
        changes = {"supersedes": replaced.digest, "correction": why}
        write_record(read_record(path).model_copy(update=changes), target)


def publication(records: Path | None, correction: str | None) -> Publication | None:
    """What the command line asks for.

    Raises:
        UsageError: a correction of records that are not published.
    """
    if records is not None:
        return Publication(records, correction)
    if correction is not None:
        raise UsageError("--correction needs --records: only published records are corrected")
    return None


def editions(folder: Path) -> list[Path]:
    """All records of a run in their order: of the attempts that failed, and of the finished run."""
    final = folder / RECORD_FILE
    return [*attempts(folder), *([final] if final.exists() else [])]


def edition(first: Path, number: int) -> Path:
    """The file of a published run's n-th edition: `seed<k>.json`, `seed<k>-2.json`, ..."""
    return first if number == 1 else first.with_name(f"{first.stem}-{number}.json")


def published(first: Path) -> list[Path]:
    """The published editions of a run."""
    paths = (edition(first, number) for number in itertools.count(1))
    return list(itertools.takewhile(Path.exists, paths))


def _same_result(record: Record, other: Record) -> bool:
    """Whether two records differ in nothing but what they replace: the run is published as a correction."""
    unlinked = {"supersedes": None, "correction": None}
    return record.model_copy(update=unlinked) == other.model_copy(update=unlinked)


def _copy(source: Path, target: Path) -> None:
    _copy_items(source, target)
    copy_file(source, target)


def _copy_items(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    items = source.with_name(ITEMS_FILE)
    if source.name == RECORD_FILE and items.exists():
        copy_file(items, items_path(target))

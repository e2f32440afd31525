"""From paths to records: no link followed, nothing read beyond its limit, everything parsed strictly."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from mhc_bench.errors import UsageError
from mhc_bench.evidence import strict
from mhc_bench.evidence.items import (
    ITEMS_FILE,
    LARGEST_PACKED,
    PUBLISHED_ITEMS,
    ItemFile,
    items_path,
    unpack_items,
)
from mhc_bench.evidence.reproduction import REPRODUCTION_NAME
from mhc_bench.evidence.store import LARGEST_RECORD, RECORD_NAME, first_problem
from mhc_bench.evidence.verify.checks import Entry, Note, Problem, printable
from mhc_bench.evidence.versions import parse_record

MOST_FILES = 1_000_000
INTAKE = {
    "file": "only plain files of a bounded size are read; symbolic links are refused, not followed",
    "json": "strict JSON: UTF-8, bounded depth, no NaN, no duplicate keys, no number that no field can hold",
    "schema": "every field is known, present, of its type and range; names hold no path and no markup",
    "item file": "per-item outcomes unpack within their bound, fit their schema and stand beside a record",
}
"""The checks that a file must pass before the others can look at it: name -> what each proves."""


@dataclass
class Intake:
    """What was read, and what was refused."""

    entries: list[Entry] = field(default_factory=list)
    reproductions: list[tuple[Path, bytes]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def refuse(self, path: Path, check: str, found: object, expected: object) -> None:
        """Note a problem of a file."""
        self.problems.append(Problem(printable(path), check, printable(found), printable(expected)))


def read_all(paths: Sequence[Path]) -> Intake:
    """Everything below `paths` that is a record or belongs to one.

    Raises:
        UsageError: a path that does not exist, or no record at all.
    """
    intake = Intake()
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"no such file or folder: {printable(path)}")
        found = list(_walk(path, intake))
        root = path if path.is_dir() else None
        _read_found(found, root, intake)
    if not intake.entries and not intake.problems:
        raise UsageError(
            f"no records in {', '.join(map(printable, paths))}: expected record.json or seed<k>.json"
        )
    return intake


def _walk(top: Path, intake: Intake) -> Iterator[Path]:
    """The plain files below `top` with a name that concerns us; links are refused wherever they are."""
    if top.is_symlink():
        intake.refuse(top, "file", "a symbolic link", "a file or folder")
        return
    if not top.is_dir():
        yield top
        return
    others, seen = 0, 0
    for folder, folders, files in os.walk(top):
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            seen += 1
            if path.is_symlink():
                intake.refuse(path, "file", "a symbolic link", "a file or folder")
            elif name in files and _concerns(name):
                yield path
            else:
                others += name in files
        folders.sort()
        if seen > MOST_FILES:
            raise UsageError(f"{printable(top)} holds more than {MOST_FILES} files: name a smaller folder")
    if others:
        intake.notes.append(Note(printable(top), "file", f"{others} other files, not looked at"))


def _concerns(name: str) -> bool:
    patterns = (RECORD_NAME, PUBLISHED_ITEMS, REPRODUCTION_NAME)
    return name == ITEMS_FILE or any(pattern.match(name) for pattern in patterns)


def _read_found(paths: Iterable[Path], root: Path | None, intake: Intake) -> None:
    found = list(paths)
    packed = [path for path in found if path.name.endswith(ITEMS_FILE)]
    told = [path for path in found if REPRODUCTION_NAME.match(path.name)]
    beside = {*packed, *told}
    records = [path for path in found if path not in beside]
    for path in records:
        if (entry := _read_entry(path, root, intake)) is not None:
            intake.entries.append(entry)
    for path in told:
        if (data := _bytes(path, LARGEST_RECORD, intake)) is not None:
            intake.reproductions.append((path, data))
    owned = {items_path(path) for path in records}
    for path in packed:
        if path not in owned:
            intake.refuse(path, "item file", "no record beside it", "the record that it belongs to")


def _read_entry(path: Path, root: Path | None, intake: Intake) -> Entry | None:
    data = _bytes(path, LARGEST_RECORD, intake)
    if data is None:
        return None
    try:
        content = strict.parse(data)
    except ValueError as error:
        intake.refuse(path, "json", error, "strict JSON (docs/records.md)")
        return None
    try:
        record = parse_record(data)
    except ValidationError as error:
        intake.refuse(path, "schema", first_problem(error), "a record (results/schema.json)")
        return None
    except ValueError as error:
        intake.refuse(path, "schema", error, "a record of a known version")
        return None
    return Entry(path, root, data, content, record, _read_items(items_path(path), intake))


def _read_items(path: Path, intake: Intake) -> ItemFile | None:
    if not os.path.lexists(path) or path.is_symlink():
        return None
    data = _bytes(path, LARGEST_PACKED, intake)
    if data is None:
        return None
    try:
        return unpack_items(data)
    except ValidationError as error:
        intake.refuse(path, "item file", first_problem(error), "per-item outcomes (docs/records.md)")
    except ValueError as error:
        intake.refuse(path, "item file", error, "per-item outcomes, gzipped")
    return None


def _bytes(path: Path, limit: int, intake: Intake) -> bytes | None:
    """The bytes of a plain file of at most `limit` bytes; anything else is refused unread."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        intake.refuse(path, "file", error.strerror or "cannot be opened", "a readable file")
        return None
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            intake.refuse(path, "file", "no plain file", "a plain file")
            return None
        data = file.read(limit + 1)
    if len(data) > limit:
        intake.refuse(path, "file", f"{max(state.st_size, len(data))} bytes", f"at most {limit} bytes")
        return None
    return data

"""Records on disk: read with a clear refusal of damage, written whole or not at all."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence.items import ItemStore, items_path
from mhc_bench.evidence.record import Record, canonical_json
from mhc_bench.evidence.versions import parse_record
from mhc_bench.files import write_text

LARGEST_RECORD = 8 * 2**20
"""Bytes. A record of a thousand-point run has under a tenth of this."""
RECORD_NAME = re.compile(r"^(record|record-\d{1,4}|seed\d{1,10}(-\d{1,4})?)\.json$")
"""A finished run's own record, one of an attempt that failed, a published one, and its further editions."""
ATTEMPT_NAME = re.compile(r"^record-(\d{1,4})\.json$")


def read_record(path: Path) -> Record:
    """The record in `path`.

    Raises:
        RunError: naming the file and the first field that is wrong.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_RECORD:
            raise RunError(f"{path}: {size} bytes is larger than a record may be ({LARGEST_RECORD})")
        record = parse_record(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path}: not a valid record: {first_problem(error)}") from error
    except ValueError as error:
        raise RunError(f"{path}: not a valid record: {error}") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    record._path = path
    return record


def given_record(path: Path) -> Record:
    """The record in a file that a user named.

    Raises:
        UsageError: as `read_record`, or no such file.
    """
    if not path.is_file():
        raise UsageError(f"no such record: {path}")
    try:
        return read_record(path)
    except RunError as error:
        raise UsageError(str(error)) from error


def first_problem(error: ValidationError) -> str:
    """One line: the first field that is wrong, and how many more are."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    field = ".".join(str(step) for step in first["loc"]) or "the whole file"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{field[:120]}: {first['msg'][:200]}{more}"


def record_paths(folder: Path) -> list[Path]:
    """All `record.json` and `seed<k>.json` below `folder`, sorted.

    Raises:
        UsageError: when `folder` is not a folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder with records (record.json or seed<k>.json)")
    return sorted(path for path in folder.rglob("*.json") if RECORD_NAME.match(path.name))


def attempts(folder: Path) -> list[Path]:
    """The records of a run's attempts that failed, in their order, from its folder."""
    names = ((ATTEMPT_NAME.match(path.name), path) for path in folder.glob("record-*.json"))
    found = {int(match[1]): path for match, path in names if match}
    return [found[number] for number in sorted(found)]


def read_records(folder: Path | Iterable[Path]) -> list[Record]:
    """All records below a folder, or below several, in the order of their paths, without superseded ones.

    Raises:
        UsageError: when there is no such folder, or no record in it.
        RunError: when a record is damaged.
    """
    return without_superseded([record for _, record in _read_all(folder)])


def read_with_items(folder: Path | Iterable[Path]) -> tuple[list[Record], ItemStore]:
    """The same records, and where the per-item outcomes of each lie.

    Raises:
        UsageError, RunError: as `read_records`.
    """
    found = _read_all(folder)
    beside = {record.digest: items_path(path) for path, record in found}
    files = {digest: path for digest, path in beside.items() if path.is_file()}
    return without_superseded([record for _, record in found]), ItemStore(files)


def _read_all(folder: Path | Iterable[Path]) -> list[tuple[Path, Record]]:
    folders = [folder] if isinstance(folder, Path) else list(folder)
    paths = [path for place in folders for path in record_paths(place)]
    if not paths:
        raise UsageError(
            f"no records in {', '.join(map(str, folders))}: expected record.json or seed<k>.json"
        )
    with without_collections():
        return [(path, read_record(path)) for path in paths]


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection inside: reading makes none, and each would walk all the records read so far."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def without_superseded(records: list[Record]) -> list[Record]:
    """Those of `records` that none of the others corrects."""
    gone = {record.supersedes for record in records if record.supersedes}
    return [record for record in records if record.digest not in gone] if gone else records


def write_record(record: Record, path: Path) -> None:
    """Write canonical JSON to `path`, whole or not at all."""
    write_text(path, canonical_json(record))

"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mhc_bench.errors import UsageError

PROGRESS_FILE = "progress.json"
"""Where a run stands just now; gone when its stage is over."""

NO_FOLDERS = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP}
"""What file systems say that write no folder to disk when they are asked to."""


def default_cache() -> Path:
    """Where what can be made again is kept: `MHC_BENCH_CACHE`, or `~/.cache/mhc-bench`."""
    chosen = os.environ.get("MHC_BENCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "mhc-bench"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        rename_on_disk(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename_on_disk(source: Path, path: Path, aside: Path | None = None) -> None:
    """Give a file, or a folder with all that is in it, the name `path`, so that it outlives a power cut.

    The content is on disk before the name is, and the name when this returns.

    Args:
        aside: where a folder goes that has the name now.
    """
    inside = source.rglob("*") if source.is_dir() else ()
    for each in (*inside, source):
        _to_disk(each)
    if aside is not None and path.exists():
        path.rename(aside)
    source.replace(path)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in NO_FOLDERS):
            raise


def remove_unfinished(folder: Path, spared: str = "") -> None:
    """Remove what killed processes left half-written anywhere below `folder`; the caller alone writes there.

    Args:
        spared: a file that some other process may be writing.
    """
    for path in [*folder.rglob(".*.tmp"), *folder.rglob(".*.old")]:
        if spared and path.name.startswith(f".{spared}."):
            continue
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file's content, whole or not at all."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes the new or empty folder `out` when the block ends well.

    Raises:
        UsageError: `out` is a file or a folder with something in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists: expected a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield staged
        staged.chmod(0o755)
        rename_on_disk(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """Write canonical JSON: sorted keys, indented, no NaN or Infinity."""
    write_text(path, _json(content))


def write_progress(folder: Path, content: dict[str, object]) -> None:
    """Write `progress.json`, whole or not at all, without waiting for the disk: steps are measured."""
    path = folder / PROGRESS_FILE
    temporary = path.with_name(f".{PROGRESS_FILE}.tmp")
    temporary.write_text(_json(content), encoding="utf-8")
    temporary.replace(path)


def write_packed_json(path: Path, content: object) -> None:
    """Write compact JSON, gzipped: the same content gives the same bytes with the same zlib."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n"

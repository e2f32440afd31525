"""Documents of local text: which files, what they hold, and which of them validate."""

from __future__ import annotations

import hashlib
import json
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mhc_bench.errors import UsageError, closest

STDLIB = "stdlib"
_STDLIB_SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "lib-dynload",
    "__pycache__",
}
_STDLIB_LOCAL = ("_sysconfigdata", "sitecustomize", "usercustomize")
"""Modules that a distribution or a build writes: they differ between machines with the same Python."""
PARQUET_ROWS = 1024
"""Rows of a Parquet file in memory at a time."""


@dataclass(frozen=True)
class Document:
    """One text and the name that it has inside its source."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of name and content."""
        return hashlib.sha256(f"{self.name}\0{self.text}".encode()).hexdigest()


def read_documents(path: str, suffixes: list[str]) -> list[Document]:
    """All documents of a file, a folder or the running Python's standard library, by name.

    Raises:
        UsageError: when the path is missing, holds no text, or a file is not UTF-8.
    """
    root, files = text_files(path, suffixes)
    found = (part for file in files for part in documents_of(file, file.relative_to(root).as_posix()))
    documents = [document for document in found if document.text.strip()]
    if not documents:
        raise UsageError(f"data.path {path!r} holds no text: expected files ending in {', '.join(suffixes)}")
    return documents


def text_files(path: str, suffixes: list[str]) -> tuple[Path, list[Path]]:
    """The files behind `path` in a fixed order, and the folder that their names are relative to.

    Raises:
        UsageError: when the path is missing.
    """
    if path == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        return root, [file for file in _tree(root, [".py"]) if _belongs_to_stdlib(file.relative_to(root))]
    root = Path(path).expanduser()
    if root.is_file():
        return root.parent, [root]
    return root, _tree(_existing(root), suffixes)


def _existing(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    names = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = closest(folder.name, [*names, STDLIB])
    hint = f"; did you mean {near!r}?" if near else ""
    raise UsageError(
        f"data.path {str(folder)!r} does not exist: expected a file, a folder or {STDLIB!r}{hint}"
    )


def _tree(root: Path, suffixes: Iterable[str]) -> list[Path]:
    wanted = {suffix.lower() for suffix in suffixes}
    found = (file for file in root.rglob("*") if file.suffix.lower() in wanted and file.is_file())
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _belongs_to_stdlib(name: Path) -> bool:
    folders = name.parts[:-1]
    if any(part in _STDLIB_SKIPPED or part.startswith("config-") for part in folders):
        return False
    return not name.name.startswith(_STDLIB_LOCAL)


def documents_of(file: Path, name: str, field: str = "text") -> Iterator[Document]:
    """The documents of one file: rows of `.parquet`, lines of `.jsonl`, or the whole file.

    Raises:
        UsageError: a file that is not what its suffix says, or has no such field.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(file, name, field)
    return _json_lines(file, name, field) if suffix == ".jsonl" else _whole(file, name)


def _whole(file: Path, name: str) -> Iterator[Document]:
    yield Document(name, _decoded(file.read_bytes(), f"data file {name!r}"))


def _json_lines(file: Path, name: str, field: str) -> Iterator[Document]:
    with file.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                text = _decoded(line, f"line {number} of {name!r}")
                yield Document(f"{name}:{number}", _field(text, name, number, field))


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 (byte {error.start}): convert it first") from error


def _field(line: str, name: str, number: int, field: str) -> str:
    try:
        content = json.loads(line)[field]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"line {number} of {name!r} is no JSON object with a field {field!r}") from error
    text = "" if content is None else str(content)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"line {number} of {name!r} holds half of a character (a lone surrogate)") from error
    return text


def _parquet_rows(file: Path, name: str, field: str) -> Iterator[Document]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as table:
            columns = table.schema_arrow.names
            if field not in columns:
                raise UsageError(f"{name!r} has no column {field!r}: expected one of {', '.join(columns)}")
            batches = table.iter_batches(PARQUET_ROWS, columns=[field])
            texts = (text for batch in batches for text in batch.column(0).to_pylist())
            for number, text in enumerate(texts, start=1):
                yield Document(f"{name}:{number}", "" if text is None else str(text))
    except ArrowException as error:
        raise UsageError(f"{name!r} is not readable as Parquet: {' '.join(str(error).split())}") from error


def fingerprint(path: str, documents: Iterable[Document]) -> str:
    """SHA-256 over all names and contents; for the standard library over Python's version too."""
    whole = hashlib.sha256((platform.python_version() if path == STDLIB else "").encode())
    for document in documents:
        whole.update(bytes.fromhex(document.digest))
    return whole.hexdigest()


def split(documents: list[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """Training and validation documents, by hash of each; a lone document is cut near its end.

    The document with the smallest hash always validates, the one with the largest always trains.
    """
    if len(documents) == 1:
        return _cut(documents[0], fraction)
    ranked = sorted(documents, key=lambda document: document.digest)
    kept = {ranked[0]} | {part for part in ranked[:-1] if int(part.digest[:16], 16) < fraction * 2.0**64}
    return [part for part in documents if part not in kept], [part for part in documents if part in kept]


def _cut(document: Document, fraction: float) -> tuple[list[Document], list[Document]]:
    text = document.text
    place = text.rfind("\n", 0, int(len(text) * (1 - fraction))) + 1 or int(len(text) * (1 - fraction))
    return [Document(document.name, text[:place])], [Document(document.name, text[place:])]

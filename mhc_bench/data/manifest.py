"""What a folder of token shards holds, and the check that it still holds it.

`manifest.json` is there when the folder is complete, `unfinished.json` while it is being written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mhc_bench.config.schema import ShardsConfig
from mhc_bench.errors import RunError, UsageError
from mhc_bench.files import file_digest, write_json, write_text

FORMAT = 1
MANIFEST_FILE, UNFINISHED_FILE, VERIFIED_FILE = "manifest.json", "unfinished.json", "verified.json"
LOCK_FILE = ".lock"
Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Shard:
    """One file of token ids, little-endian, in the manifest's type."""

    name: str
    split: Split
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A folder of shards: where the text came from, how it became tokens, and the files."""

    request: dict[str, str]
    """The fields of the configuration that decide over the content, without paths of a machine."""
    source: str
    revision: str
    """The commit of a published data set, or a digest of a local source's file names and sizes."""
    tokenizer_sha256: str
    separator: str
    separator_id: int
    pad: str
    vocabulary: int
    shard_tokens: int
    """A training shard is closed at the first block of documents with which it has so many tokens."""
    documents: int = 0
    validation_documents: int = 0
    text_bytes: int = 0
    """UTF-8 bytes of all documents."""
    consumed: int = 0
    """Texts read from the source, empty ones among them: where an interrupted preparation goes on."""
    shards: tuple[Shard, ...] = ()
    format: int = FORMAT

    @property
    def dtype(self) -> np.dtype[Any]:
        """16 bits where they hold every id, else 32."""
        return np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the digests of all shards."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def of(self, split: Split) -> list[Shard]:
        """The shards of one part, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def tokens(self, split: Split) -> int:
        """Tokens of one part."""
        return sum(shard.tokens for shard in self.of(split))

    def write(self, path: Path) -> None:
        """Write this as JSON, whole or not at all."""
        write_json(path, dataclasses.asdict(self))


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        RunError: it is damaged or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise RunError(
                f"{path} has format {content['format']!r}: expected {FORMAT}; prepare the data again"
            )
        content["shards"] = tuple(Shard(**shard) for shard in content["shards"])
        return Manifest(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def request_of(config: ShardsConfig) -> dict[str, str]:
    """The fields of `config` that decide over the content; local paths by their last part."""
    fields = ("revision", "subset", "split", "text_field", "separator", "vocabulary", "validation_fraction")
    request = {name: str(getattr(config, name)) for name in fields}
    request["suffixes"] = " ".join(config.suffixes)
    return request | {"source": _place(config.source), "tokenizer": _place(config.tokenizer)}


def _place(text: str) -> str:
    path = Path(text).expanduser()
    return path.name if path.is_absolute() or path.exists() else text


def shard_folder(config: ShardsConfig, cache_dir: Path) -> Path:
    """Where the shards of `config` lie: its `path`, or a folder of the cache named after its content."""
    if config.path:
        return Path(config.path).expanduser()
    exact = request_of(config) | {"source": config.source, "tokenizer": config.tokenizer}
    digest = hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:12]
    return cache_dir / "shards" / f"{Path(config.source).name}-{digest}"


def check_request(config: ShardsConfig, manifest: Manifest, folder: Path) -> None:
    """Refuse shards that were made from something else.

    Raises:
        UsageError: naming the first field that differs.
    """
    for name, asked in request_of(config).items():
        found = manifest.request.get(name)
        # a relative path looks like a name where it does not lead anywhere
        if found not in (asked, Path(asked).name):
            raise UsageError(f"the shards in {folder} have data.{name} {found!r}: expected {asked!r}")


def verify(folder: Path, manifest: Manifest, again: bool = False) -> None:
    """Compare every shard with the manifest: its size always, its SHA-256 once for each state of the file.

    What was compared is kept in `verified.json` by size and time of change, so that hundreds of gigabytes are
    hashed once and not at every start; ranks that start together wait for the first.

    Args:
        again: hash all shards, whatever was compared before.

    Raises:
        RunError: naming the shard that is missing, truncated or altered.
    """
    for shard in manifest.shards:
        _check_size(folder / shard.name, shard.tokens * manifest.dtype.itemsize)
    with _locked(folder):
        known = {} if again else _read_verified(folder)
        states = {shard.name: [shard.sha256, *_state(folder / shard.name)] for shard in manifest.shards}
        unknown = [shard for shard in manifest.shards if known.get(shard.name) != states[shard.name]]
        with ThreadPoolExecutor() as pool:
            for shard, found in zip(
                unknown, pool.map(lambda s: file_digest(folder / s.name), unknown), strict=True
            ):
                if found != shard.sha256:
                    raise _refused(
                        folder / shard.name, f"altered: SHA-256 {found[:12]}, expected {shard.sha256[:12]}"
                    )
        if unknown and os.access(folder, os.W_OK):
            write_text(folder / VERIFIED_FILE, json.dumps(states))


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise _refused(path, "missing")
    found = path.stat().st_size
    if found != expected:
        word = "truncated" if found < expected else "altered"
        raise _refused(path, f"{word}: {found} bytes, expected {expected}")


def _refused(path: Path, why: str) -> RunError:
    return RunError(
        f"shard {path.name} in {path.parent} is {why}; remove the folder and prepare the data again"
    )


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _read_verified(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / VERIFIED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if not os.access(folder, os.W_OK):
        yield
        return
    with FileLock(folder / LOCK_FILE):
        yield


class TokenStream:
    """The tokens of one part over all its shards, mapped into memory when they are first read."""

    def __init__(self, folder: Path, shards: list[Shard], dtype: np.dtype[Any]) -> None:
        self._paths = [folder / shard.name for shard in shards]
        self._ends = np.cumsum([shard.tokens for shard in shards], dtype=np.int64)
        self._dtype = dtype
        self._maps: dict[int, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        # a map would be copied as the array that it is
        return self.__dict__ | {"_maps": {}}

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Tokens `start` to `start + length`, `[length]`, all of which exist."""
        pieces = []
        while length > 0:
            number = int(np.searchsorted(self._ends, start, side="right"))
            shard = self._map(number)
            offset = start - (int(self._ends[number]) - len(shard))
            pieces.append(shard[offset : offset + length].astype(np.int64))
            start, length = start + len(pieces[-1]), length - len(pieces[-1])
        return np.concatenate(pieces)

    def _map(self, number: int) -> npt.NDArray[Any]:
        if number not in self._maps:
            self._maps[number] = np.memmap(self._paths[number], dtype=self._dtype, mode="r")
        return self._maps[number]

"""Published records in a folder of their own, to be changed in one respect, all digests made right again."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mhc_bench.evidence.items import ITEMS_FILE, items_path
from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.verify import Report, Tools, verify
from mhc_bench.suite.verify import identify

FIXTURES = Path(__file__).parent / "fixtures" / "records"
FOLDERS = {1: "quick-cc4f49c1b1", 2: "smoke-777a4fddff"}
Content = dict[str, Any]


class Records:
    """A copy of the fixture records of one schema version, below `root`."""

    def __init__(self, root: Path, version: int = 2) -> None:
        self.root, self.folder = root, root / FOLDERS[version]
        shutil.copytree(FIXTURES / f"version-{version}", root, dirs_exist_ok=True)
        self.tools = Tools(identify=identify, count=None)

    def path(self, run: str) -> Path:
        """The record of a run such as `hc/seed1`."""
        return self.folder / f"{run}.json"

    def read(self, run: str) -> Content:
        """A record's content."""
        content: Content = json.loads(self.path(run).read_text(encoding="utf-8"))
        return content

    def write(self, run: str, content: Content) -> None:
        """Put a record back as it would have been published."""
        self.path(run).write_text(canonical(content), encoding="utf-8")

    def change(self, run: str, change: Callable[[Content], object]) -> None:
        """Change a record's content."""
        content = self.read(run)
        change(content)
        self.write(run, content)

    def change_items(self, run: str, change: Callable[[Content], object]) -> None:
        """Change the per-item outcomes, and the two digests of them that the record holds."""
        path = items_path(self.path(run))
        content = json.loads(gzip.decompress(path.read_bytes()))
        change(content)
        text = json.dumps(content).encode()
        path.write_bytes(gzip.compress(text, mtime=0))
        record = self.read(run)
        record["evaluation"]["items"] = hashlib.sha256(text).hexdigest()
        record["side_files"][ITEMS_FILE] = hashlib.sha256(path.read_bytes()).hexdigest()
        self.write(run, record)

    def verify(self) -> Report:
        """What `verify` says of the folder."""
        return verify([self.root], self.tools)

    def refused_by(self) -> set[str]:
        """The checks that find a problem."""
        return {problem.check for problem in self.verify().problems}


def echo(configuration: Mapping[str, Any], version: int) -> tuple[str, str]:
    """Ids that are always right, as if two configurations had one digest."""
    return configuration["protocol_id"], configuration["cost_id"]


def place(content: Content, dotted: str) -> tuple[Any, Any]:
    """The container and the key that a dotted path names."""
    *parents, last = dotted.split(".")
    target: Any = content
    for step in parents:
        target = target[int(step) if isinstance(target, list) else step]
    return target, int(last) if isinstance(target, list) else last


def put(dotted: str, value: object) -> Callable[[Content], None]:
    """A change: a value in its place."""

    def change(content: Content) -> None:
        target, key = place(content, dotted)
        target[key] = value

    return change


def scale(dotted: str, factor: float) -> Callable[[Content], None]:
    """A change: a number times a factor."""

    def change(content: Content) -> None:
        target, key = place(content, dotted)
        target[key] *= factor

    return change


def each(*changes: Callable[[Content], object]) -> Callable[[Content], None]:
    """Several changes of one record."""

    def change(content: Content) -> None:
        for one in changes:
            one(content)

    return change

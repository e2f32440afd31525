"""Names of the shipped lm-eval tasks, found without loading lm-eval."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mhc_bench.errors import UsageError, choose
from mhc_bench.resources import tasks_dir


class _Loader(yaml.SafeLoader):
    """YAML in which lm-eval's `!function` is only a word."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def task_names(folder: Path | None = None) -> dict[str, Path]:
    """Tasks and groups under `folder` (default: the shipped ones), by name, with the file of each.

    Raises:
        UsageError: a file that is not YAML.
    """
    root = folder or tasks_dir()
    names: dict[str, Path] = {}
    for path in sorted(root.rglob("*.yaml")):
        content = _read(path)
        name = content.get("group") or content.get("task")
        if isinstance(name, str):
            names[name] = path
    return names


def check_tasks(names: Iterable[str], folder: Path | None = None) -> None:
    """Refuse names that `folder` does not define; meant to be called before training.

    Raises:
        UsageError: naming the unknown task and the nearest known one, or a name given twice.
    """
    known = task_names(folder)
    seen: set[str] = set()
    for name in names:
        choose("evaluation task", name, known)
        if name in seen:
            raise UsageError(f"evaluation task {name!r} is named twice: expected each task once")
        seen.add(name)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    return content if isinstance(content, dict) else {}

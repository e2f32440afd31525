"""Names of the shipped lm-eval tasks, found without loading lm-eval.

A group on lm-eval's own tasks says so in its metadata: `lm_eval` names the folders of lm-eval's tasks that it
is built on, and `requires` the packages that these need. Only those folders are indexed: all take seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
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
    return {name: path for name, (path, _) in _definitions(folder).items()}


def group_names() -> list[str]:
    """The groups among the shipped names."""
    return [name for name, (_, content) in _definitions(None).items() if "group" in content]


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


def check_overlap(names: Iterable[str], folder: Path | None = None) -> None:
    """Refuse groups that share a task: lm-eval would run it once, with the shots of one of them.

    Raises:
        UsageError: naming the shared task and the two names that hold it.
    """
    definitions = _definitions(folder)
    holder: dict[str, str] = {}
    for name in names:
        for member in _members(name, definitions):
            other = holder.setdefault(member, name)
            if other != name:
                raise UsageError(
                    f"evaluation tasks {other!r} and {name!r} both hold {member!r}: "
                    "expected them in two evaluations"
                )


def lm_eval_folders(names: Iterable[str], folder: Path | None = None) -> list[Path]:
    """Folders of lm-eval's own tasks that `names` are built on."""
    return [lm_eval_root() / each for each in _metadata(names, "lm_eval", folder)]


def lm_eval_root() -> Path:
    """Where the installed lm-eval keeps its own tasks."""
    spec = find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "tasks"


def required_packages(names: Iterable[str], folder: Path | None = None) -> list[str]:
    """Requirements, beyond those of this package, that `names` state."""
    return _metadata(names, "requires", folder)


def needing_data(names: Iterable[str], folder: Path | None = None) -> list[str]:
    """Those of `names` that ask about data that the package does not hold itself."""
    known = _definitions(folder)
    return [name for name in names if any(_external(each, known) for each in _members(name, known))]


def _external(name: str, definitions: dict[str, tuple[Path, dict[str, Any]]]) -> bool:
    """lm-eval's own tasks are never in our files; ours say where their data comes from."""
    return name not in definitions or "dataset_path" in definitions[name][1]


def _metadata(names: Iterable[str], key: str, folder: Path | None) -> list[str]:
    definitions = _definitions(folder)
    found = (definitions[name][1].get("metadata", {}).get(key, []) for name in names if name in definitions)
    return list(dict.fromkeys(each for values in found for each in values))


def _members(name: str, definitions: dict[str, tuple[Path, dict[str, Any]]]) -> Iterator[str]:
    """What a task or group runs, as far down as our own files tell."""
    content = definitions[name][1] if name in definitions else {}
    if "group" not in content:
        yield name
        return
    for member in content["task"]:
        yield from _members(member_name(member), definitions)


def member_name(member: str | Mapping[str, Any]) -> str:
    """The task or group that an entry of a group's list stands for; an entry may carry settings."""
    name = member if isinstance(member, str) else member.get("group") or member["task"]
    return str(name)


def _definitions(folder: Path | None) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name -> file and content."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted((folder or tasks_dir()).rglob("*.yaml")):
        content = _read(path)
        name = content.get("group") or content.get("task")
        if isinstance(name, str):
            found[name] = (path, content)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    return content if isinstance(content, dict) else {}

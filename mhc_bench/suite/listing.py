"""`mhc-bench list`: names and one line each, from files alone, so that it answers at once."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mhc_bench.config import part_names
from mhc_bench.config.parts import (
    part_file,
    read_part,
    read_variant,
)
from mhc_bench.errors import UsageError
from mhc_bench.resources import configs_dir, installed_variants, tasks_dir
from mhc_bench.suite.state import read_state

Rows = list[dict[str, str]]
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where PyYAML was built with it: the parsing of all suites would take a third of the command's time."""


def show(what: str, runs: Path, as_json: bool) -> int:
    """Print the list of suites, variants, models, tasks or runs."""
    rows = (
        {"suites": suites, "variants": variants, "models": models, "tasks": tasks}[what]()
        if what != "runs"
        else found_runs(runs)
    )
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no runs in {runs}" if what == "runs" else f"no {what} here")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    Console().print(table)
    return 0


def suites() -> Rows:
    """Shipped suites and what each is for."""
    return [{"suite": name, "description": _description(name)} for name in part_names("suites")]


def variants() -> Rows:
    """Shipped variants, then those that installed packages register."""
    connections = {name: str(read_variant(name)["connection"]) for name in part_names("variants")}
    installed = sorted(installed_variants().items())
    connections |= {name: target for name, target in installed if name not in connections}
    return [{"variant": name, "connection": connection} for name, connection in connections.items()]


def models() -> Rows:
    """Shipped models with the comment at the head of their files."""
    return [
        {"model": name, "about": _comment(configs_dir() / "models" / f"{name}.yaml")}
        for name in part_names("models")
    ]


def tasks() -> Rows:
    """Shipped lm-eval tasks and groups: the YAML files under `tasks/` by the name that each declares."""
    found = (path for path in sorted(tasks_dir().rglob("*.yaml")) if not path.name.startswith("_"))
    return [{"task": path.stem, "about": _comment(path)} for path in found]


def found_runs(root: Path) -> Rows:
    """Runs below a folder, and where each stands."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"--runs {root}: expected a folder")
    folders = sorted(path.parent for path in root.glob("*/*/seed*/config.yaml"))
    states = [(folder, read_state(folder)) for folder in folders]
    return [
        {"run": folder.as_posix(), "state": state.standing, "detail": state.detail}
        for folder, state in states
    ]


def _description(suite: str) -> str:
    # OmegaConf's nodes, and what a suite rests on, would take most of the time of this command
    own = yaml.load(part_file("suite", "suites", suite).read_text(encoding="utf-8"), Loader=_Loader)
    return str((own if "description" in own else read_part("suite", "suites", suite)).get("description", ""))


def _comment(path: Path) -> str:
    """The first line of the comment at the head of a file."""
    head = path.read_text(encoding="utf-8").partition("\n")[0]
    return head.removeprefix("#").strip() if head.startswith("#") else ""

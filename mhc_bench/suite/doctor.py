"""`mhc-bench doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mhc_bench.provenance import machine

MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
"""Releases that stole credentials at import (GHSA-w37p-236h-pfx3)."""
FREE_BYTES_WANTED = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `verdict`: ok, missing (something cannot run) or note."""

    what: str
    verdict: str
    detail: str


def show(as_json: bool) -> int:
    """Print the findings; 1 where something that every suite needs is missing."""
    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("what", "verdict", "detail"):
            table.add_column(heading, overflow="fold")
        for finding in findings:
            table.add_row(*map(Text, (finding.what, finding.verdict, finding.detail)))
        Console().print(table)
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def examine() -> list[Finding]:
    """All findings, in the order in which they matter."""
    checks: list[Callable[[], list[Finding]]] = [
        *(_python, _packages, _machine, _compiler, _accelerator, _disk, _tasks)
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    found = sys.version.split()[0]
    verdict = "ok" if sys.version_info >= (3, 11) else "missing"
    return [Finding("python", verdict, f"{found} (3.11 or newer is needed)")]


def _packages() -> list[Finding]:
    try:
        needed = [Requirement(text) for text in requires("mhc-bench") or []]
    except PackageNotFoundError:
        return [Finding("mhc-bench", "missing", "not installed: pip install --editable . in its folder")]
    return [_package(each) for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _package(requirement: Requirement) -> Finding:
    name, wanted = requirement.name, str(requirement.specifier) or "any version"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "missing", f"not installed ({wanted})")
    if found in MALICIOUS.get(name, ()):
        return Finding(
            name, "missing", f"{found} IS A MALICIOUS RELEASE: uninstall it and change your passwords"
        )
    fits = requirement.specifier.contains(found, prereleases=True)
    return Finding(name, "ok" if fits else "missing", f"{found} ({wanted})")


def _machine() -> list[Finding]:
    here = machine()
    memory = f"{here['memory_bytes'] / 2**30:.0f} GiB" if here["memory_bytes"] else "unknown memory"
    return [
        Finding("machine", "ok", f"{here['processor']}, {here['cores']} cores, {memory}, {here['system']}")
    ]


def _compiler() -> list[Finding]:
    from mhc_bench.model import cpp_compiler

    if (command := cpp_compiler()) is None:
        return [Finding("C++ compiler", "note", "none: hardware.operations=compiled does not run here")]
    return [Finding("C++ compiler", "ok", f"{' '.join(command)}, for hardware.operations=compiled")]


def _accelerator() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [
            Finding("gpu", "note", "none: hardware=cpu and hardware=cpu-fsdp run here, the GPU ones do not")
        ]
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    return [Finding("gpu", "ok", f"{count}: {names}")]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    verdict = "ok" if free >= FREE_BYTES_WANTED else "missing"
    writable = os.access(Path.cwd(), os.W_OK)
    return [
        Finding("disk", verdict, f"{free / 10**9:.0f} GB free ({FREE_BYTES_WANTED / 10**9:.0f} GB wanted)"),
        Finding("this folder", "ok" if writable else "missing", "writable" if writable else "not writable"),
    ]


def _tasks() -> list[Finding]:
    from mhc_bench.evaluation import group_names, task_names

    names = task_names()
    found = Finding("tasks", "ok" if names else "missing", f"{len(names)} lm-eval tasks and groups")
    return [found, *(_group(name) for name in group_names())]


def _group(name: str) -> Finding:
    from mhc_bench.evaluation import gap

    lacking = gap([name])
    return Finding(name, "note" if lacking else "ok", f"needs {lacking}" if lacking else "runs offline")

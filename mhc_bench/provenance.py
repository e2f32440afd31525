"""Where a result comes from: commit, packages, machine. No user names, no paths, no host names."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = (
    "torch",
    "lightning",
    "pytorch-lightning",
    "torchmetrics",
    "transformers",
    "tokenizers",
    "lm-eval",
    "omegaconf",
    "safetensors",
    "numpy",
    "triton",
)
"""Packages that can change a result; their versions stand in every record."""


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result, and of mhc-bench itself."""
    found = {name: _version(name) for name in ("mhc-bench", *PACKAGES)}
    return {name: version for name, version in found.items() if version}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def lock_hash() -> str | None:
    """SHA-256 over `name==version` of all that mhc-bench needs, directly or not; None if not installed."""
    if not _version("mhc-bench"):
        return None
    found, waiting = {"mhc-bench": ""}, list(_needed("mhc-bench", frozenset()))
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        found[name] = f"{name}=={_version(name)}\n"
        new = set(_needed(name, extras)) - seen
        seen |= new
        waiting.extend(new)
    return hashlib.sha256("".join(sorted(found.values())).encode()).hexdigest()


def _needed(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """The installed packages that one of them requires here, each with the extras that are asked of it."""
    for text in importlib.metadata.requires(name) or []:
        wanted = Requirement(text)
        marker = wanted.marker
        applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})
        if applies and _version(wanted.name):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


@functools.cache
def commit() -> tuple[str, bool | None]:
    """The source's git commit and whether tracked files differ from it; ("", None) outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if shutil.which("git") is None or not (root / ".git").exists():
        return "", None
    head = _git(root, "rev-parse", "HEAD")
    return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", "mhc_bench", "tasks"))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """What computes here: system, processor, cores, memory. GPUs are added by whoever has torch."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": available_cores(),
        "memory_bytes": _memory(),
    }


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

"""Two processes never write one run, or one suite's shared files: the second waits, or leaves them alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"
"""Stays where it is: removing it would let in a third process while a second one waits."""


def is_first_rank() -> bool:
    """Whether this process speaks for its run: the launcher starts the others with a rank above 0."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process is at work in `folder`; then none begins."""
    if not is_first_rank():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_FILE):
        yield


@contextlib.contextmanager
def unless_taken(folder: Path) -> Iterator[bool]:
    """Whether no other process is at work in `folder`; inside, none begins."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()

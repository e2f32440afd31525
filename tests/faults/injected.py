"""Faults: each is told in which kind of process it is, and arranges for what shall happen there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forked_suite import Fault

from mhc_bench.config import RunConfig
from mhc_bench.evaluation import run as evaluation_run
from mhc_bench.suite import worker
from mhc_bench.training import module

WRITES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link")
"""Audit events that change a file system; of `open` those that write."""


def on_write(role: str, root: Path, number: int, act: Callable[[], None], *, then_on: bool = False) -> Fault:
    """`act` in place of the `number`-th change (from 0) below `root` of a process of kind `role`.

    Args:
        then_on: and of all that follow.
    """
    below, count = str(root), iter(range(10**9))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WRITES or not os.fsdecode(_path(arguments)).startswith(below):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        place = next(count)
        if place == number or (then_on and place > number):
            act()

    return lambda here: sys.addaudithook(hook) if here == role else None


def _path(arguments: tuple[Any, ...]) -> str | bytes:
    """The absolute path that an event is about; empty where it is about an open file."""
    first = arguments[0]
    return "" if isinstance(first, int) or first is None else os.path.abspath(os.fspath(first))  # noqa: PTH100


def die() -> None:
    """What no handler sees."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(code: int) -> Callable[[], None]:
    """The operating system's answer to whoever wants to write."""

    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


DISK_FULL, READ_ONLY = refuse(errno.ENOSPC), refuse(errno.EROFS)


def in_call(role: str, owner: Any, name: str, number: int, act: Callable[[], object]) -> Fault:
    """`act` before the `number`-th call (from 0) of a method, in a process of kind `role`."""

    def install(here: str) -> None:
        if here != role:
            return
        method, count = getattr(owner, name), iter(range(10**9))

        def changed(*arguments: Any, **named: Any) -> Any:
            if next(count) == number:
                act()
            return method(*arguments, **named)

        setattr(owner, name, changed)

    return install


def in_step(number: int, act: Callable[[], object]) -> Fault:
    """`act` in the `number`-th forward pass of training (from 0) of each worker."""
    return in_call("worker", module.ResidualTraining, "training_step", number, act)


def in_evaluation(number: int, act: Callable[[], object]) -> Fault:
    """`act` when the `number`-th answer (from 0) is reported."""
    return in_call("worker", evaluation_run._Reporter, "__call__", number, act)


def tell(number: signal.Signals) -> Callable[[], None]:
    """The signal, sent to this process itself."""
    return lambda: os.kill(os.getpid(), number)


def tell_parent(number: signal.Signals) -> Callable[[], None]:
    """The signal, sent to the process that has started this one."""
    return lambda: os.kill(os.getppid(), number)


def small_files(limit: int) -> Fault:
    """No file of a worker may get larger than `limit` bytes: writing ends in the middle of one."""

    def install(here: str) -> None:
        if here == "worker":
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return install


def clock_backwards(seconds: float) -> Fault:
    """The clock of the day, in all processes, runs backwards from now on."""

    def install(here: str) -> None:
        began, now = time.monotonic(), time.time()
        time.time = lambda: now - seconds * (time.monotonic() - began)
        time.time_ns = lambda: int(time.time() * 1e9)

    return install


BEGINS, BESIDE, ENDS = "begins", "begins beside another", "ends"


def noted(journal: Path) -> Fault:
    """No fault: each worker notes in `journal` when it goes on with a run, and when it has completed it."""

    def note(run: RunConfig, what: str) -> None:
        with journal.open("a") as handle:
            handle.write(f"{run.variant_name} {what}\n")

    def install(here: str) -> None:
        if here != "worker":
            return
        complete = worker.complete_as_rank

        def noting(run: RunConfig, folder: Path) -> None:
            with journal.with_suffix(f".{run.variant_name}").open("a") as mark:
                try:  # a lock of our own: the kernel gives back that of a process that dies
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    note(run, BEGINS)
                except BlockingIOError:
                    note(run, BESIDE)
                complete(run, folder)
                note(run, ENDS)

        worker.complete_as_rank = noting

    return install


def both(first: Fault, second: Fault) -> Fault:
    """One fault and another."""
    return lambda here: (first(here), second(here))


Damage = Callable[[list[Path], list[Path]], None]
"""Told the checkpoints of a run, newest first, and those of another run of the same suite."""


def truncated(own: list[Path], other: list[Path]) -> None:
    """Half of the weights are missing."""
    (shard,) = own[0].glob("shard-*")
    os.truncate(shard, shard.stat().st_size // 2)


def altered(own: list[Path], other: list[Path]) -> None:
    """One bit of the weights is another."""
    (shard,) = own[0].glob("shard-*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def unlisted(own: list[Path], other: list[Path]) -> None:
    """The manifest is cut."""
    os.truncate(own[0] / "manifest.json", 20)


def emptied(own: list[Path], other: list[Path]) -> None:
    """Every file is there and has no content, as after a power cut."""
    for path in own[0].iterdir():
        os.truncate(path, 0)


def all_truncated(own: list[Path], other: list[Path]) -> None:
    """No checkpoint is whole."""
    for each in own:
        truncated([each], other)


def swapped(own: list[Path], other: list[Path]) -> None:
    """Another run's checkpoint lies under this one's name."""
    own[0].rename(own[0].with_name("aside"))
    other[0].rename(own[0])
    own[0].with_name("aside").rename(other[0].parent / own[0].name)


def renamed(own: list[Path], other: list[Path]) -> None:
    """An early checkpoint says that it is a late one."""
    own[-1].rename(own[0].with_name("step-00000006"))


def foreign(own: list[Path], other: list[Path]) -> None:
    """Something that another program has written."""
    for path in own[0].iterdir():
        path.unlink()
    (own[0] / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    (own[0] / "manifest.json").write_text(json.dumps({"files": {"pytorch_model.bin": "0"}}))


DAMAGES: list[Damage] = [
    *(truncated, altered, unlisted, emptied, all_truncated, swapped, renamed, foreign),
]


Harm = Callable[[Path, Path], None]
"""Told the folders of the final models of a run and of another run of the same suite."""


def model_truncated(own: Path, other: Path) -> None:
    """Half of the weights are missing."""
    weights = own / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def model_without_description(own: Path, other: Path) -> None:
    """The weights are whole, and nothing says of what."""
    (own / "config.json").unlink()


def model_gone(own: Path, other: Path) -> None:
    """Nothing is left."""
    shutil.rmtree(own)


def models_swapped(own: Path, other: Path) -> None:
    """Each run has the other's."""
    own.rename(own.with_name("aside"))
    other.rename(own)
    own.with_name("aside").rename(other)


HARMS: list[Harm] = [model_truncated, model_without_description, model_gone, models_swapped]

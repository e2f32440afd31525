"""Real processes without the price of importing torch again: forks of the test process."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL


def fork(work: Callable[[], object], result: Path) -> int:
    """Start `work` in a child that pickles what it returns into `result`; returns the child's id."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns about threads, none of which matter
        child = os.fork()
    if child:
        return child
    code = 1
    gc.freeze()  # what the parent left to be collected may have threads, which a child does not have
    try:
        result.write_bytes(pickle.dumps(work()))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float = 120.0) -> int:
    """The child's exit code, negative for a signal; one that takes longer is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"child took more than {seconds} s")


def in_child(work: Callable[[], object], seconds: float = 120.0) -> tuple[int, Any]:
    """Exit code of `work` in a child process, and what it returned (None where it did not)."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        code = wait(fork(work, result), seconds)
        return code, pickle.loads(result.read_bytes()) if result.exists() else None


def on_ranks(work: Callable[[int], object], world: int = 2, nodes: int = 1) -> list[tuple[int, Any]]:
    """`work(rank)` on ranks that look as if torchrun had started them: exit code and result of each.

    With several `nodes` each starts its equal part of the ranks, in order.

    When one rank dies, the others are killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / str(rank) for rank in range(world)]
        children = [fork(_rank(work, rank, world, nodes, port), results[rank]) for rank in range(world)]
        codes = _wait_all(children)
        found = [pickle.loads(path.read_bytes()) if path.exists() else None for path in results]
    return list(zip(codes, found, strict=True))


def _rank(
    work: Callable[[int], object], rank: int, world: int, nodes: int, port: int
) -> Callable[[], object]:
    local = world // nodes

    def run() -> object:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % local),
            "GROUP_RANK": str(rank // local),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(local),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        return work(rank)

    return run


def _wait_all(children: list[int], seconds: float = 180.0) -> list[int]:
    codes: dict[int, int] = {}
    end = time.monotonic() + seconds
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > end:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                codes[child] = KILLED
        time.sleep(0.01)
    return [codes[child] for child in children]

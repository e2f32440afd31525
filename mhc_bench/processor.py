"""How a process computes on a CPU: its threads, and the memory that it frees."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_HEAP_BLOCK = 32 << 20  # glibc allows no more
_KEPT = 2**31 - 1


@contextlib.contextmanager
def processor(threads: int) -> Iterator[None]:
    """Compute with `threads` CPU threads inside, and from now on keep what is freed."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed tensors of up to 32 MiB for the next ones.

    By default glibc gives large blocks back to the system, which hands them out again page by page, zeroed:
    at C = 256 about an eighth of what mHC adds to a step on a CPU.

    Returns:
        Whether the library could be asked; where it is not glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK) and mallopt(_TRIM_THRESHOLD, _KEPT))

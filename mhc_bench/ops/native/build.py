"""Compiling the kernels once per machine, dtype and number of streams; later processes load the file."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import torch

from mhc_bench.errors import UsageError
from mhc_bench.files import atomic_path, default_cache

SOURCES = ("kernels.cpp", "maps.h", "projection.h", "sinkhorn.h", "streams.h", "vectors.h")
SCALARS = {torch.float32: "float", torch.float64: "double"}
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
SHARED = ("-shared", "-fPIC", "-pthread")
# vectors are passed inlined alone, so that how they would be passed otherwise is no concern
QUIET = ("-Wno-psabi",)


def compiler() -> list[str] | None:
    """The C++ compiler's command: `CXX`, or the first that is found; None where there is none."""
    wanted = shlex.split(os.environ.get("CXX", "")) or next(([c] for c in COMPILERS if shutil.which(c)), [])
    return wanted if wanted and shutil.which(wanted[0]) else None


def require_compiler() -> list[str]:
    """The compiler's command.

    Raises:
        UsageError: there is none.
    """
    if (command := compiler()) is None:
        raise UsageError("operations 'compiled': no C++ compiler here (CXX, c++, g++, clang++); use 'eager'")
    return command


@functools.cache
def kernels(streams: int, dtype: torch.dtype) -> ctypes.CDLL:
    """The kernels for n = `streams`; the first call on a machine compiles them, in a few seconds.

    Raises:
        UsageError: there is no C++ compiler, it fails, or what it makes cannot be kept or loaded here.
    """
    command = require_compiler()
    options = [*FLAGS, f"-DSCALAR={SCALARS[dtype]}", f"-DSTREAMS={streams}"]
    try:
        return _loaded([*command, *options])
    except (OSError, RuntimeError) as error:  # the latter of Path.home, where nobody knows a home
        hint = "set MHC_BENCH_CACHE to a folder that takes libraries, or use 'eager'"
        raise UsageError(f"operations 'compiled': cannot be built and loaded ({error}); {hint}") from error


def _loaded(command: list[str]) -> ctypes.CDLL:
    library = default_cache() / "operations" / f"{_digest(command)}.so"
    if not library.exists():
        _compile([*command, *SHARED, *QUIET], library)
    return ctypes.CDLL(os.fspath(library))


def _compile(command: list[str], library: Path) -> None:
    source = Path(__file__).with_name("kernels.cpp")
    with atomic_path(library) as temporary:
        done = subprocess.run(
            [*command, os.fspath(source), "-o", os.fspath(temporary)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            reason = errors[0] if errors else f"exit code {done.returncode}"
            raise UsageError(f"operations 'compiled': {command[0]} cannot build them ({reason}); use 'eager'")


def _digest(command: list[str]) -> str:
    """Of the sources, the command, the compiler's version and the processor that `native` means."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False).stdout
    parts = [" ".join(command), version, _processor()]
    parts += [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SOURCES]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What decides which instructions there are."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(kept))])

"""Triton's interpreter in a child process: the kernels on a CPU, whatever this process has imported."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from forked import in_child


def start_interpreting() -> None:
    """Import Triton anew so that it interprets; for a process that does nothing else.

    It decides for each function while that is defined, so modules that hold functions have to go.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)  # the threads of a forked process are gone
    for name in list(sys.modules):
        kernels = name.startswith("mhc_bench.ops.kernels") or name == "mhc_bench.ops.fused"
        if kernels or (name.split(".")[0] == "triton" and not name.startswith("triton._C")):
            del sys.modules[name]
    # NumPy warns of infinities and NaN, which some tests are about
    warnings.filterwarnings("ignore", category=RuntimeWarning)


def interpreted(work: Callable[[], Any]) -> Any:
    """What `work` returns in a child that interprets."""

    def child() -> Any:
        start_interpreting()
        return work()

    code, result = in_child(child, seconds=600.0)
    assert code == 0, "the child's traceback stands in the captured output"
    return result


def wherever(name: str, work: Callable[[], Any]) -> Any:
    """What `work` returns where the operations called `name` run: Triton's, on a CPU, interpreted alone."""
    return interpreted(work) if name == "triton" else work()

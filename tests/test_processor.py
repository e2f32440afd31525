"""What a process does with its CPU: threads for a while, and memory that it keeps."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from mhc_bench.processor import keep_freed_memory, processor


def test_threads_are_those_asked_for_inside_alone() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), processor(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


KEPT = """
import torch
from pathlib import Path
from mhc_bench.processor import processor

resident = lambda: int(Path("/proc/self/statm").read_text().split()[1])
with processor(1):
    before = resident()
    streams = [torch.ones(5 << 20) for _ in range(8)]  # of 20 MiB
    del streams
    print(resident() - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no mallopt")
def test_the_memory_of_freed_tensors_is_kept() -> None:
    """In a process of its own, whose heap has no history."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) * resource.getpagesize() > 8 * (20 << 20)


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory.__wrapped__()

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


FAULTS = """
import resource, torch
from mhc_bench.processor import processor

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with processor(1):
    torch.ones(2 << 20)  # 8 MiB
    before = faults()
    for _ in range(16):
        torch.ones(2 << 20)
    print(faults() - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no mallopt")
def test_the_memory_of_freed_tensors_is_taken_again() -> None:
    """In a process of its own, whose heap has no history."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    each = (8 << 20) // resource.getpagesize()
    assert int(done.stdout) < 4 * each  # of 16 times, which are 16 * each without it


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory.__wrapped__()

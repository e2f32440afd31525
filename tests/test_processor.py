"""What a process does with its CPU: threads for a while, and memory that it keeps."""

from __future__ import annotations

import resource
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


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no mallopt")
def test_the_memory_of_freed_tensors_is_taken_again() -> None:
    size, times = 8 << 20, 16

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    with processor(1):
        torch.ones(size // 4)
        before = faults()
        for _ in range(times):
            torch.ones(size // 4)
        assert faults() - before < size // resource.getpagesize()  # else so many each time


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory.__wrapped__()

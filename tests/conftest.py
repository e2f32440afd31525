"""For all tests: one thread, as tox sets it, and the longest first."""

from __future__ import annotations

import os

import pytest

# before torch is imported: a fork of a process with OpenMP's threads hangs
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one while the others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)

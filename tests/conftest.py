"""For all tests: one thread, as tox sets it, because a fork of a process with OpenMP's threads hangs."""

from __future__ import annotations

import os

# before torch is imported
os.environ["OMP_NUM_THREADS"] = "1"

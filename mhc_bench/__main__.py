"""`python -m mhc_bench` is the `mhc-bench` command."""

from __future__ import annotations

import sys

from mhc_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())

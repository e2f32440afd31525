"""Coverage-guided fuzzing of `verify`, for machines with atheris; no part of the tests.

pip install atheris && python tests/fuzz/fuzz_verify.py -max_total_time=60
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mhc_bench"]):
    from mhc_bench.evidence.verify import verify

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-verify-"))
RECORD, ITEMS = FOLDER / "seed0.json", FOLDER / "seed0.items.json.gz"


def one_input(data: bytes) -> None:
    """The input is the record, and packed it is the record's per-item outcomes."""
    RECORD.write_bytes(data)
    ITEMS.write_bytes(gzip.compress(data, 1))
    report = verify([FOLDER])
    json.dumps(report.to_json(), allow_nan=False)
    report.to_text().encode()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

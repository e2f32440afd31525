"""Coverage-guided fuzzing of `verify`, for machines with atheris; no part of the tests.

pip install atheris && python tests/fuzz/fuzz_verify.py -max_total_time=60
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from mhc_bench.evidence.verify import verify

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-verify-"))
RECORD, ITEMS = FOLDER / "seed0.json", FOLDER / "seed0.items.json.gz"


def one_input(data: bytes) -> None:
    """The first two bytes say how much of the input is the record; the rest are its items."""
    provider = atheris.FuzzedDataProvider(data)
    RECORD.write_bytes(provider.ConsumeBytes(provider.ConsumeIntInRange(0, len(data))))
    ITEMS.write_bytes(provider.ConsumeBytes(provider.remaining_bytes()))
    report = verify([FOLDER])
    json.dumps(report.to_json(), allow_nan=False)
    report.to_text().encode()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

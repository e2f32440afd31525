"""Coverage-guided fuzzing of what `verify` and the leaderboard read from strangers: `tox -e fuzz`.

python tests/fuzz/fuzz_verify.py CORPUS -max_total_time=60: CORPUS keeps the inputs that reach new code.
An input is a record, per-item outcomes or a reproduction, as its first byte says.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["mhc_bench"]):
    from mhc_bench.errors import MhcBenchError
    from mhc_bench.evidence.leaderboard import Contents, load_board, page
    from mhc_bench.evidence.record import canonical
    from mhc_bench.evidence.verify import verify

FIXTURES = Path(__file__).parents[1] / "fixtures" / "records"
RUN = FIXTURES / "version-2" / "smoke-777a4fddff" / "hc" / "seed1.json"
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-verify-"))
RECORD, ITEMS = FOLDER / "seed1.json", FOLDER / "seed1.items.json.gz"
REPRODUCTION = FOLDER / "seed1.reproduction-1.json"
KINDS = b"rio"
"""Record, per-item outcomes, reproduction ("other's run")."""


def one_input(data: bytes) -> None:
    """Put the input in its place beside valid files, and read them all: only refusals may come out."""
    kind, content = data[:1], data[1:]
    RECORD.write_bytes(content if kind == b"r" else RUN.read_bytes())
    packed = gzip.compress(content, 1) if kind == b"i" else RUN.with_name(ITEMS.name).read_bytes()
    ITEMS.write_bytes(packed)
    REPRODUCTION.unlink(missing_ok=True)
    if kind == b"o":
        REPRODUCTION.write_bytes(content)
    report = verify([FOLDER])
    json.dumps(report.to_json(), allow_nan=False)
    report.to_text().encode()
    if {problem.check for problem in report.problems} <= {"seeds"}:  # the others of its protocol are not here
        tables()


def tables() -> None:
    """What stands every check is also drawn."""
    with contextlib.suppress(MhcBenchError):
        page(Contents(load_board(FOLDER)))


NUMBERS = [0, -1, 1, 2**63 - 1, 0.5, -0.0, 1e308, 5e-324]
VALUES = [None, True, "", "=1", "<b>", "../x", "seed1", [], {}, *NUMBERS]


def place(content: Any, draw: random.Random) -> tuple[Any, Any]:
    """A container and a key in it, by a walk from the root: long lists weigh no more than fields."""
    while True:
        key = draw.choice(list(content) if isinstance(content, dict) else range(len(content)))
        inner = content[key]
        if not isinstance(inner, (dict, list)) or not inner or draw.random() < 0.1:
            return content, key
        content = inner


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Bytes changed anywhere, as libFuzzer does; or values of valid JSON, which then passes the parser."""
    draw = random.Random(seed)
    try:
        content = json.loads(data[1:])
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not content or draw.random() < 0.1:
        return bytes(atheris.Mutate(data, longest))
    for _ in range(draw.randint(1, 2)):
        container, key = place(content, draw)
        number = isinstance(container[key], (int, float)) and draw.random() < 0.8
        if isinstance(container, dict) and len(container) > 1 and draw.random() < 0.05:
            del container[key]
        else:
            container[key] = draw.choice(NUMBERS if number else VALUES)
    return (data[:1] + canonical(content).encode())[:longest]


def seed_corpus(folder: Path) -> None:
    """Valid inputs to start from: a generator of random bytes would never get past the first brace."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(FIXTURES.rglob("seed?.json"))):
        (folder / f"record-{number}").write_bytes(b"r" + path.read_bytes())
    for number, path in enumerate(sorted(FIXTURES.rglob("*.items.json.gz"))[:2]):
        (folder / f"items-{number}").write_bytes(b"i" + gzip.decompress(path.read_bytes()))
    results = FIXTURES.parents[2] / "results" / "records"
    for number, path in enumerate(sorted(results.rglob("*.reproduction-*.json"))[:2]):
        (folder / f"reproduction-{number}").write_bytes(b"o" + path.read_bytes())


if __name__ == "__main__":
    for word in sys.argv[1:]:
        if not word.startswith("-"):
            seed_corpus(Path(word))
    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()

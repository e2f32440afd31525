"""Whatever the bytes say, `verify` ends in a list of problems and never in a traceback."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tampering import Content, Records, echo

from mhc_bench.evidence.items import items_path
from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.verify import Report, Tools, verify
from mhc_bench.suite.verify import identify

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2**63 - 1, -(2**63) + 1, 1e308, -1e308, 5e-324, 1e-300, 709.9, True]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63) + 1, 2**63 - 1),
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)
RUN = "hc/seed1"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Two records of one protocol, so that they are compared too."""
    records = Records(tmp_path_factory.mktemp("fuzz"))
    for path in records.folder.rglob("seed*"):
        if path.parent.name != "hc":
            path.unlink()
    return records


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container with every key in it."""
    found: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        found += [(content, key) for key in content]
    elif isinstance(content, list):
        found += [(content, index) for index in range(min(3, len(content)))]
    for container, key in list(found):
        found += places(container[key])
    return found


def mutated(content: Content, draw: Any) -> Content:
    """A record with one to three values replaced by others, removed, or joined by others."""
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(content)))
        what = draw(st.sampled_from(["replace", "number", "remove", "add"]))
        if what == "replace":
            container[key] = draw(JSON)
        elif what == "number":
            container[key] = draw(NUMBERS)
        elif what == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.text(max_size=8))] = draw(JSON)
        if not content:
            break
    return content


def report_of(records: Records, tools: Tools) -> Report:
    report = verify([records.root], tools)
    json.dumps(report.to_json(), allow_nan=False)
    report.to_text().encode()
    return report


@FUZZ
@given(data=st.data())
@pytest.mark.parametrize("tools", [Tools(identify=identify), Tools()], ids=["ids", "no tools"])
def test_a_mutated_record_gives_a_report(pair: Records, tools: Tools, data: st.DataObject) -> None:
    original = pair.path(RUN).read_bytes()
    try:
        pair.path(RUN).write_text(canonical(mutated(json.loads(original), data.draw)), encoding="utf-8")
        report_of(pair, tools)
    finally:
        pair.path(RUN).write_bytes(original)


@FUZZ
@given(data=st.data())
def test_numbers_of_any_size_give_a_report(pair: Records, data: st.DataObject) -> None:
    """Values that pass the schema reach the arithmetic of the checks."""
    original = pair.path(RUN).read_bytes()
    content = json.loads(original)
    numeric = [
        (container, key)
        for part in ("training", "mechanism", "evaluation", "cost", "configuration")
        for container, key in places(content[part])
        if isinstance(container[key], (int, float)) and not isinstance(container[key], bool)
    ]
    container, key = data.draw(st.sampled_from(numeric))
    whole = isinstance(container[key], int)
    container[key] = data.draw(NUMBERS.filter(lambda value: isinstance(value, int) == whole))
    try:
        pair.path(RUN).write_text(canonical(content), encoding="utf-8")
        report_of(pair, Tools(identify=echo))
    finally:
        pair.path(RUN).write_bytes(original)


@FUZZ
@given(data=st.data())
def test_mutated_outcomes_give_a_report(pair: Records, data: st.DataObject) -> None:
    path = items_path(pair.path(RUN))
    kept = path.read_bytes(), pair.path(RUN).read_bytes()
    try:
        pair.change_items(RUN, lambda items: mutated(items, data.draw))
        report_of(pair, Tools())
    finally:
        path.write_bytes(kept[0])
        pair.path(RUN).write_bytes(kept[1])


@FUZZ
@given(at=st.integers(0, 5000), noise=st.binary(min_size=1, max_size=8), packed=st.booleans())
def test_damaged_bytes_give_a_report(pair: Records, at: int, noise: bytes, packed: bool) -> None:
    path: Path = items_path(pair.path(RUN)) if packed else pair.path(RUN)
    original = path.read_bytes()
    damaged = original[: at % len(original)] + noise + original[at % len(original) :]
    try:
        path.write_bytes(damaged)
        assert report_of(pair, Tools()).problems
    finally:
        path.write_bytes(original)


@FUZZ
@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_report(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "seed0.json").write_bytes(content)
    (folder / "seed0.items.json.gz").write_bytes(gzip.compress(content))
    assert verify([folder]).problems

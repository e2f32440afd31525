"""Step times that the documents quote are those of the published files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "results" / "bench"
ROW = re.compile(r"\| ([\d.]+ \([^|]*\)) \| ([\d.]+ \([^|]*\)) \| `(step-[\w-]+\.json)` \|")
ROWS = [match.groups() for match in ROW.finditer((ROOT / "docs" / "benchmarks.md").read_text())]


def ratios(name: str) -> dict[str, str]:
    """Variant -> its step over the baseline's, with the interval, as a document writes it."""
    variants = json.loads((BENCH / name).read_text())["steps"]["variants"]
    return {
        each["variant"]: "{median:.2f} ({low:.2f} to {high:.2f})".format(**each["ratio"]) for each in variants
    }


def test_the_table_of_step_times_has_a_row_for_each_width_and_layer_kind() -> None:
    assert len(ROWS) == 5


@pytest.mark.parametrize(("hc", "mhc", "name"), ROWS)
def test_a_row_of_step_times_is_what_its_file_says(hc: str, mhc: str, name: str) -> None:
    assert (ratios(name)["hc"], ratios(name)["mhc"]) == (hc, mhc)


OPS_FILE = "ops-cpu-2026-11-28.json"
OPS_ROW = re.compile(r"^\| `(\w+)`( \w+)? \| (\d+) \| (.+) \|$", flags=re.MULTILINE)
OPS_ROWS = [match.groups("") for match in OPS_ROW.finditer((ROOT / "docs" / "benchmarks.md").read_text())]


def test_the_table_of_operations_is_of_the_file_that_it_names() -> None:
    assert OPS_FILE in (ROOT / "docs" / "benchmarks.md").read_text() and len(OPS_ROWS) == 14


@pytest.mark.parametrize(("operation", "variant", "width", "printed"), OPS_ROWS)
def test_a_row_of_operations_is_what_its_file_says(
    operation: str, variant: str, width: str, printed: str
) -> None:
    cells = [
        each
        for each in json.loads((BENCH / OPS_FILE).read_text())["cells"]
        if (each["operation"], each["variant"]) == (operation, variant.strip())
        and each["width"] == int(width)
        and each["seconds"]
    ]

    def both(name: str, entry: str, times: float, form: str) -> str:
        found = {each["direction"]: each[entry]["median"] for each in cells if each["implementation"] == name}
        return " / ".join(form.format(times * found[way]) for way in ("forward", "backward"))

    def milliseconds(name: str) -> str:
        return both(name, "seconds", 1e3, "{:.2f}")

    peers = sorted({each["implementation"] for each in cells} - {"reference", "eager", "compiled"})
    expected = [
        milliseconds("compiled"),
        both("compiled", "copy_fraction", 100, "{:.0f} %"),
        milliseconds("eager"),
        milliseconds("reference"),
        ", ".join(f"{name} {milliseconds(name)}" for name in peers) or "-",
    ]
    assert printed.split(" | ") == expected


def test_the_readme_quotes_the_step_times_of_the_file_that_it_names() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    found = ratios("step-quick-cpu-2026-11-28.json")
    assert f"HC takes {found['hc']} and mHC {found['mhc']} times the baseline's" in text
    assert "step-quick-cpu-2026-11-28.json" in text


def test_what_sinkhorns_rounds_cost_is_what_the_file_says() -> None:
    name = "step-sinkhorn-width128-cpu-2026-11-27.json"
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
    found = ratios(name)
    assert (
        f"with one round mHC's step is {found['mhc-t1']} times the baseline's, with twenty "
        f"{found['mhc-t20']}, with fifty {found['mhc-t50']}"
        in text
        and name in text
    )
    profiles = json.loads((BENCH / name).read_text())["profiles"]
    one, twenty = (
        {each["name"]: 1e3 * each["seconds"] for each in profiles[variant]["operators"]}
        for variant in ("mhc-t1", "mhc-t20")
    )
    reads = [f"mhc_bench_native::{operator}" for operator in ("read_backward", "write_read", "read")]
    added = sum(twenty[operator] - one[operator] for operator in reads)
    step = 1e3 * profiles["mhc-t20"]["seconds"]
    assert (
        f"nineteen rounds add {added:.1f} ms of {step:.0f} to the three; eleven operators take longer" in text
    )
    assert sum(milliseconds > added for milliseconds in twenty.values()) == 11


@pytest.mark.parametrize("name", sorted(path.name for path in BENCH.glob("*.json")))
def test_a_published_measurement_names_its_commit_versions_and_machine(name: str) -> None:
    origin = json.loads((BENCH / name).read_text())["origin"]
    assert origin["commit"] and not origin["dirty"]
    assert origin["versions"]["torch"] and origin["machine"]["processor"] and origin["date"]


@pytest.mark.parametrize("name", sorted(path.name for path in BENCH.glob("step-*.json")))
def test_steps_of_a_published_measurement_are_of_one_process_with_a_baseline(name: str) -> None:
    variants = json.loads((BENCH / name).read_text())["steps"]["variants"]
    assert variants[0]["ratio"] == {"high": 1.0, "low": 1.0, "median": 1.0}
    assert len({each["n"] for each in variants}) == 1

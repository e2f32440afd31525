"""Verbs that only read do without the libraries that train: held by what they import, not by a stopwatch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mhc_bench import cli, resources

RECORDS = Path(__file__).parent / "fixtures" / "records" / "version-2"
TRAINING = {"torch", "lightning", "pytorch_lightning", "transformers", "lm_eval", "datasets", "triton"}
DRAWING = {"matplotlib", "scipy", "pandas"}
PROGRAM = """
import contextlib, sys
from mhc_bench import cli
with contextlib.suppress(SystemExit):
    assert cli.main(sys.argv[2:]) == 0
print("loaded:", *sorted(set(sys.argv[1].split(",")) & set(sys.modules)))
"""


def loaded(unwanted: set[str], *words: str) -> str:
    """Which of the `unwanted` modules a command has imported when it ends."""
    command = [sys.executable, "-c", PROGRAM, ",".join(sorted(unwanted)), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("loaded:").strip()


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list", "suites"], ["list", "variants"], ["list", "tasks"]]
)
def test_help_and_lists_load_nothing_that_trains_or_draws(words: list[str]) -> None:
    assert loaded(TRAINING | DRAWING, *words) == ""


def test_help_does_not_even_load_the_configuration() -> None:
    assert loaded({"omegaconf", "yaml", "rich", "pydantic"}, "--help") == ""


def test_a_list_of_variants_looks_for_those_of_other_packages_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def found(*, group: str) -> list[EntryPoint]:
        looked.append(group)
        return []

    monkeypatch.setattr(resources, "entry_points", found)
    assert cli.main(["list", "variants", "--json"]) == 0
    assert looked == [resources.VARIANT_ENTRY_POINTS]


def test_a_leaderboard_is_made_without_torch(tmp_path: Path) -> None:
    assert loaded(TRAINING, "leaderboard", str(RECORDS), "--out", str(tmp_path / "page")) == ""
    assert (tmp_path / "page" / "leaderboard.md").exists()


def test_a_record_is_described_without_torch() -> None:
    (record,) = RECORDS.glob("*/mhc/seed0.json")
    assert loaded(TRAINING | DRAWING, "describe", str(record)) == ""

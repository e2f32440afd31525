"""The tutorial's files are written and its commands run, in a copy of the checkout, with a smaller suite."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mhc_bench import cli

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8").partition("## In a package")[0]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TUTORIAL, flags=re.DOTALL)
FILES = {
    "python": ["mhc_bench/residual/gated_skip.py"],
    "yaml": ["configs/variants/gated-skip.yaml", "gated.yaml"],
}
"""Where the blocks of a language belong, in order; the text says so ahead of each."""
TINY = (
    "model=llama-d32-l2 training.steps=4 training.validate_every=2 training.probe_every=2 "
    "evaluation.limit=2 seeds=[0,1]"
)
COMMANDS = [
    shlex.split(line) for language, block in BLOCKS if language == "bash" for line in block.splitlines()
]


def test_each_command_parses_and_each_block_has_a_place() -> None:
    assert [words[1] for words in COMMANDS] == [
        "new-variant",
        "check",
        "plan",
        "run",
        "verify",
        "leaderboard",
    ]
    for words in COMMANDS:
        assert words[0] == "mhc-bench" and cli._parse(words[1:]).call
    for language, places in FILES.items():
        assert [kind for kind, _ in BLOCKS].count(language) == len(places)
        assert all(f"`{place}`" in TUTORIAL for place in places)


@pytest.mark.kit
def test_the_tutorial_goes_from_the_idea_to_the_row(tmp_path: Path) -> None:
    for part in ("mhc_bench", "configs", "tasks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    places = {language: iter(files) for language, files in FILES.items()}
    for language, block in BLOCKS:
        if language == "bash":
            for line in block.splitlines():
                command(tmp_path, shlex.split(line))
        else:
            place = tmp_path / next(places[language])
            # the scaffold is there already; the suite is new
            assert place.exists() == (place.name != "gated.yaml")
            place.write_text(block, encoding="utf-8")
    page = (tmp_path / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert re.search(r"Validation loss .*\| gated-skip \|", page)


def command(folder: Path, words: list[str]) -> None:
    """One of the tutorial's commands, in a process of its own that finds the copy."""
    more = TINY.split() if words[1] in ("plan", "run") else []
    done = subprocess.run(
        [sys.executable, "-m", "mhc_bench", *words[1:], *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "MHC_BENCH_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"

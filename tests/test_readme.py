"""The README's commands and code are run, or, where they take minutes, checked word for word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mhc_bench import cli
from mhc_bench.config import load_suite
from mhc_bench.suite import scaffold

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.startswith("mhc-bench ")
]
LIGHT = {"list", "plan", "describe", "leaderboard", "compare", "doctor"}


def test_the_readme_shows_commands() -> None:
    assert {words[1] for words in COMMANDS} >= LIGHT | {"run", "train", "bench"}


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[1] in LIGHT], ids=" ".join)
def test_light_commands_run_as_they_stand(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(tmp_path / "leaderboard") if word.startswith("/tmp/") else word for word in words]
    monkeypatch.chdir(ROOT)
    assert cli.main(paths[1:]) == 0


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[1] == "run"], ids=" ".join)
def test_long_runs_plan_as_they_stand(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words[1:], "--dry-run", "--runs", str(tmp_path)]) == 0
    assert "runs are missing" in capsys.readouterr().out


def one_line_ending_with(end: str) -> str:
    (line,) = [line for _, block in BLOCKS for line in block.splitlines() if line.endswith(end)]
    return line


def test_the_main_command_installs_what_is_pinned_and_runs_quick() -> None:
    assert "--constraint constraints.txt --editable ." in one_line_ending_with("mhc-bench run quick")
    assert load_suite("quick").seeds == [0, 1, 2]


def test_the_constraints_point_to_a_heading_of_the_readme() -> None:
    (heading,) = re.findall(r"see README, ([^)]+)\)", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert f"\n## {heading}\n" in README


def test_ci_runs_the_test_command_of_the_readme() -> None:
    parts = [part.strip() for part in one_line_ending_with(".venv/bin/tox").split("&&")]
    assert parts == (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-3:]


def test_every_link_leads_to_a_file_and_its_heading() -> None:
    links = re.findall(r"\]\(([^)\s#:]+)(?:#([^)\s]+))?\)", README)
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/glossary.md"} <= {
        path for path, _ in links
    }
    for path, anchor in links:
        text = (ROOT / path).read_text(encoding="utf-8") if anchor else ""
        headings = [line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("#")]
        slugs = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}
        assert (ROOT / path).is_file() and (not anchor or anchor in slugs), f"{path}#{anchor}"


def test_new_variant_writes_the_files_that_the_readme_names() -> None:
    ((*_, name),) = [words for words in COMMANDS if words[1] == "new-variant"]
    written = scaffold.in_checkout(name, ROOT).files
    assert all(f"`{path.relative_to(ROOT).as_posix()}`" in README for path in written)


def test_the_python_example_grafts_a_model_that_computes() -> None:
    (example,) = [block for language, block in BLOCKS if language == "python"]
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    import torch

    logits = names["model"](torch.arange(6)[None]).logits  # type: ignore[operator]
    assert logits.shape == (1, 6, 512)
    assert bool(logits.isfinite().all())

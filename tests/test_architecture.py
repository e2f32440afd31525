"""The arrows between the parts of the package, its module sizes, and what must not be imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mhc_bench

PACKAGE = Path(mhc_bench.__file__).parent
LEAVES = {"errors", "files", "resources", "stopping"}
SETTINGS = {"config", "provenance"}
MAY_IMPORT = {
    "kit": {"training", "model", "residual", "ops"},
    "cli": {"suite", "evaluation", "config"},
    "suite": {"training", "evaluation", "evidence", "bench", "kit", "model", "residual", "data"} | SETTINGS,
    "training": {"model", "data", "residual"} | SETTINGS,
    "evaluation": {"model", "data"} | SETTINGS,
    "bench": {"training", "model", "data", "residual", "ops", "evidence"} | SETTINGS,
    "data": SETTINGS,
    "model": {"residual", "ops"},
    "residual": {"ops"},
    "ops": set(),
    "evidence": set(),
    "config": {"provenance"},
    "provenance": set(),
}
HEAVY = {
    "torch",
    "lightning",
    "pytorch_lightning",
    "transformers",
    "lm_eval",
    "pandas",
    "matplotlib",
    "scipy",
}


def part_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """All modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) not in {"__init__", "__main__"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_each_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    allowed = LEAVES if part in LEAVES else MAY_IMPORT[part] | LEAVES | {part}
    for name in imported(path):
        if name.startswith("mhc_bench."):
            assert name.split(".")[1] in allowed, f"{part} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "evidence").rglob("*.py")), ids=lambda path: path.name)
def test_evidence_needs_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "lightning", "transformers"}


@pytest.mark.parametrize("part", ["residual", "ops"])
def test_the_subject_under_test_knows_torch_alone(part: str) -> None:
    for path in (PACKAGE / part).glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"lightning", "transformers", "omegaconf", "rich", "logging"}, path.name
        assert not any(name.startswith("torch.distributed") for name in imported(path)), path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_is_over_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "module",
    ["mhc_bench", "mhc_bench.cli", "mhc_bench.config", "mhc_bench.suite.listing", "mhc_bench.suite.verify"],
)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

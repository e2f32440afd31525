"""The arrows between the parts of the package, its module sizes, and what must not be imported early."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mhc_bench

PACKAGE = Path(mhc_bench.__file__).parent
LEAVES = {"errors", "files", "limits", "processor", "resources", "stopping"}
SETTINGS = {"config", "provenance"}
MAY_IMPORT = {
    "kit": {"training", "model", "residual", "ops"},
    "cli": {"suite", "config"},
    "suite": {"training", "evaluation", "evidence", "bench", "kit", "model", "residual", "data"} | SETTINGS,
    "training": {"model", "data", "residual", "config"},
    "evaluation": {"model", "data", "config"},
    "bench": {"training", "model", "data", "residual", "ops", "evidence"} | SETTINGS,
    "data": {"config"},
    "model": {"residual", "ops"},
    "residual": {"ops"},
    "ops": set(),
    "evidence": set(),
    "config": set(),
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
    """All modules that a file imports, anywhere in it; `from mhc_bench import x` is x's module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its part"
            whole = node.module == "mhc_bench"
            names |= {home_of(alias.name) for alias in node.names} if whole else {str(node.module)}
    return names


def home_of(name: str) -> str:
    """The module that `from mhc_bench import name` takes it from."""
    homes = {**mhc_bench._HOMES, "__version__": "mhc_bench"}
    return homes.get(name, f"mhc_bench.{name}")


def parts_used(path: Path) -> set[str]:
    """The other parts of the package that a module imports."""
    found = {name.split(".")[1] for name in imported(path) if name.startswith("mhc_bench.")}
    return found - {part_of(path)}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) not in {"__init__", "__main__"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_each_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    allowed = LEAVES if part in LEAVES else MAY_IMPORT[part] | LEAVES
    assert not parts_used(path) - allowed
    assert "mhc_bench" not in imported(path) or part == "cli"  # its attributes could be any part's


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_each_part_imports_all_that_it_may(part: str) -> None:
    used = set().union(*(parts_used(path) for path in MODULES if part_of(path) == part))
    assert used - LEAVES == MAY_IMPORT[part]


def test_the_page_draws_the_arrows_that_there_are() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.split("## Arrows", 1)[1].split("```")[1]
    arrows = re.findall(r"(\w+) -> (\{.*?\}|\w+)", block)
    drawn = {part: set(re.findall(r"\w+", to)) for part, to in arrows}
    assert drawn == {part: to for part, to in MAY_IMPORT.items() if to}
    leaves = re.search(r"((?:`\w+`(?:,\s| and ))+`\w+`) are leaves", page)
    assert leaves is not None and set(re.findall(r"`(\w+)`", leaves[1])) == LEAVES


def names_of(node: ast.ImportFrom, modules: dict[str, Path]) -> set[str]:
    """The modules that one `from ... import ...` loads, besides the packages around them."""
    members = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in modules else str(node.module) for name in members}


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        statements = [
            node
            for block in ast.parse(path.read_text(encoding="utf-8")).body
            if not (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
            for node in ast.walk(block)
            if isinstance(node, ast.ImportFrom)
        ]
        graph[name] = {found for node in statements for found in names_of(node, modules)} & set(modules)
        graph[name] -= {name}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


def test_the_parts_of_the_package_point_one_way() -> None:
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())  # raises where there is a cycle
    assert order.index("ops") < order.index("residual") < order.index("training") < order.index("cli")


@pytest.mark.parametrize("path", sorted((PACKAGE / "evidence").rglob("*.py")), ids=lambda path: path.name)
def test_evidence_needs_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "lightning", "transformers"}


@pytest.mark.parametrize("part", ["residual", "ops"])
def test_the_subject_under_test_knows_torch_alone(part: str) -> None:
    for path in (PACKAGE / part).glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"lightning", "transformers", "omegaconf", "rich", "logging"}, path.name
        assert not any(name.startswith("torch.distributed") for name in imported(path)), path.name


def body_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """A function's statements without its docstring, its arguments and variables called by their number."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    names = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)]
    own = {each.arg for each in function.args.args + function.args.kwonlyargs}
    own |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    numbers: dict[str, str] = {}
    for node in names:
        if node.id in own:
            node.id = numbers.setdefault(node.id, f"<{len(numbers)}>")
    return body


def test_no_two_functions_of_three_statements_or_more_have_one_body() -> None:
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                body = body_of(function)
                if sum(isinstance(node, ast.stmt) for each in body for node in ast.walk(each)) >= 3:
                    place = f"{path.relative_to(PACKAGE)}:{function.lineno} {function.name}"
                    found.setdefault("\n".join(map(ast.dump, body)), []).append(place)
    assert [places for places in found.values() if len(places) > 1] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_is_over_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_no_file_of_tests_is_over_400_lines() -> None:
    found = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in Path(__file__).parent.rglob("*.py")
    }
    assert found and not {name: lines for name, lines in found.items() if lines > 400}


@pytest.mark.parametrize(
    "module",
    ["mhc_bench", "mhc_bench.cli", "mhc_bench.config", "mhc_bench.suite.listing", "mhc_bench.suite.verify"],
)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The Python reference: a page for each package, in its place, and something to say of what it shows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mhc_bench

PACKAGE = Path(mhc_bench.__file__).parent
ROOT = PACKAGE.parent
PARTS = sorted(path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py"))
CHECKED = {"record_check", "protocol_check", "whole_check"}
"""Decorators of `verify` that say in words what the function checks."""


@pytest.mark.parametrize("part", PARTS)
def test_each_package_has_a_page_and_a_place(part: str) -> None:
    page = ROOT / "docs" / "reference" / f"{part}.md"
    assert page.read_text(encoding="utf-8") == f"# mhc_bench.{part}\n\n::: mhc_bench.{part}\n"
    assert f"- reference/{part}.md\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def told_by_its_decorator(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(each, ast.Call) and ast.unparse(each.func) in CHECKED for each in decorators)


def silent(path: Path) -> list[str]:
    """Public functions and classes of a module without a docstring; what a class overrides has its base's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    shown = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not told_by_its_decorator(node)
    ]
    found = [node.name for node in shown if ast.get_docstring(node) is None]
    return found + (["the module"] if ast.get_docstring(tree) is None else [])


@pytest.mark.parametrize("part", PARTS)
def test_what_the_reference_shows_has_a_docstring(part: str) -> None:
    paths = sorted((PACKAGE / part).rglob("*.py"))
    assert {str(path): silent(path) for path in paths if silent(path)} == {}

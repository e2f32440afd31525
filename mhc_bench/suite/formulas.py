"""What each shipped residual connection computes, in its author's words, read without importing torch."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path


def formulas() -> dict[str, str]:
    """Registered name -> the docstring of its class, for the connections that this package ships.

    The sources are parsed and not run: a page may name connections whose modules nobody here has checked.
    """
    found = {}
    for path in sorted(_residual().glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (name := _registered(node)):
                found[name] = ast.get_docstring(node) or ""
    return found


def _residual() -> Path:
    """The folder of the residual connections."""
    package = importlib.util.find_spec("mhc_bench")
    assert package is not None and package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "residual"


def _registered(node: ast.ClassDef) -> str:
    """The name in `@register_variant("name")`; empty for a class without."""
    for each in node.decorator_list:
        match each:
            case ast.Call(func=ast.Name(id="register_variant"), args=[ast.Constant(value=str(name))]):
                return name
    return ""

"""`mhc-bench new-variant`: a residual connection that runs as it stands, to be replaced by one's own."""

from __future__ import annotations

import contextlib
import importlib.resources
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from mhc_bench.config import part_names
from mhc_bench.errors import UsageError
from mhc_bench.files import write_text
from mhc_bench.resources import PACKAGE, resource_root

NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"


@dataclass(frozen=True)
class Scaffold:
    """What will be written, and what to do then."""

    files: dict[Path, str]
    then: list[str]


def new_variant(name: str, package: Path | None) -> int:
    """Write a variant's module and configuration: into the checkout that this is run in, or into a package.

    Args:
        name: of the variant, such as `gated-skip`.
        package: the folder of a package of one's own; new, or with a `pyproject.toml`.

    Raises:
        UsageError: a name that is none or is taken, or a file that exists; nothing has been written.
    """
    check_name(name)
    root = checkout_here() if package is None else None
    scaffold = in_checkout(name, root) if root else in_package(name, package or Path(name))
    write_all(scaffold.files)
    for path in scaffold.files:
        print(f"wrote {path}")
    print("\n".join(["", *scaffold.then]))
    return 0


def check_name(name: str) -> None:
    """Refuse a name that cannot be one, or that a variant has."""
    from mhc_bench.residual import variant_names

    if re.fullmatch(NAME, name) is None:
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f", such as {near!r}" if re.fullmatch(NAME, near) else ", such as 'gated-skip'"
        raise UsageError(f"variant name {name!r}: expected lower-case words joined by dashes{hint}")
    if keyword.iskeyword(module_name(name)):
        raise UsageError(
            f"variant name {name!r}: it is a word of Python; expected another, such as '{name}-residual'"
        )
    if name in {*part_names("variants"), *variant_names()}:
        raise UsageError(
            f"variant name {name!r}: there is a variant of that name already; see mhc-bench list variants"
        )


def module_name(name: str) -> str:
    """`gated-skip` to `gated_skip`."""
    return name.replace("-", "_")


def class_name(name: str) -> str:
    """`gated-skip` to `GatedSkip`."""
    return "".join(part.capitalize() for part in name.split("-"))


def checkout_here() -> Path | None:
    """The checkout that this package runs from, where the working directory lies in it."""
    root = PACKAGE.parent
    is_checkout = resource_root() == root and (root / "configs" / "variants").is_dir()
    return root if is_checkout and Path.cwd().resolve().is_relative_to(root) else None


def in_checkout(name: str, root: Path) -> Scaffold:
    """A module beside the shipped variants, where it is found by itself."""
    module = root / "mhc_bench" / "residual" / f"{module_name(name)}.py"
    part = root / "configs" / "variants" / f"{name}.yaml"
    files = {
        module: rendered("variant.py.j2", name, registered=True),
        part: rendered("variant.yaml.j2", name, connection=name),
    }
    return Scaffold(files, [f"next: mhc-bench check {name}, then edit {module}"])


def in_package(name: str, folder: Path) -> Scaffold:
    """A module in a package of one's own, which tells of it by an entry point."""
    package = re.sub(r"\W+", "_", folder.resolve().name.lower())
    if not package.isidentifier() or keyword.iskeyword(package):
        raise UsageError(
            f"package folder {folder}: expected a name that Python can import, such as my_variants"
        )
    target = f"{package}.{module_name(name)}:{class_name(name)}"
    entry_point = f'[project.entry-points."mhc_bench.variants"]\n{name} = "{target}"'
    source = folder / "src" / package
    files = {
        source / f"{module_name(name)}.py": rendered("variant.py.j2", name, registered=False),
        folder / "configs" / "variants" / f"{name}.yaml": rendered(
            "variant.yaml.j2", name, connection=target
        ),
    }
    if not (source / "__init__.py").exists():
        files[source / "__init__.py"] = '"""Residual connections for mhc-bench."""\n'
    then = [f"next: pip install --editable {folder}, then mhc-bench check {name}"]
    if (folder / "pyproject.toml").exists():
        then = [f"next: add to {folder / 'pyproject.toml'}", "", entry_point, "", *then]
    else:
        files[folder / "pyproject.toml"] = rendered(
            "pyproject.toml.j2", name, package=package, entry_point=entry_point
        )
    return Scaffold(files, [*then, f"without installing, a suite can name it as {target}"])


def rendered(template: str, name: str, **values: object) -> str:
    """A template of this package, filled."""
    text = (importlib.resources.files("mhc_bench.suite") / "templates" / template).read_text(encoding="utf-8")
    title = name.replace("-", " ").capitalize()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(text).render(name=name, title=title, class_name=class_name(name), **values)


def write_all(files: dict[Path, str]) -> None:
    """All files or none.

    Raises:
        UsageError: one exists, or cannot be written.
    """
    for path in files:
        if path.exists():
            raise UsageError(f"{path} exists already: expected a name of which there is no file")
    folders = [each for path in files for each in path.parents if not each.exists()]
    try:
        for path, text in files.items():
            write_text(path, text)
    except OSError as error:
        for path in files:
            with contextlib.suppress(OSError):
                path.unlink()
        for folder in sorted(set(folders), key=lambda each: len(each.parts), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise UsageError(f"cannot write here ({error}): nothing has been written") from error

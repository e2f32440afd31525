"""The files of exact versions agree with each other, and hold what may not be installed at bay."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNNING = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
EXTRAS = PROJECT["project"]["optional-dependencies"]
NOT_TESTED_LOWEST = {"browser", "fuzz"}
"""Extras of tools that `tox -e lowest` does not install; nor does it the dependency groups."""
CLAIMED = RUNNING + [
    Requirement(text) for name, each in EXTRAS.items() if name not in NOT_TESTED_LOWEST for text in each
]
FOREIGN = {"tzdata", "httpx2-jsfetch"}
"""Of platforms that the constraints do not name."""
OF_TORCH = {"torch", "setuptools"}
"""Come with the build that is chosen for the machine; so do the packages of its CUDA build."""


def pins(name: str) -> dict[str, Version]:
    """Package -> version of a file of exact versions."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line) for line in lines]
    return {canonicalize_name(match[1]): Version(match[2]) for match in found if match}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
@pytest.mark.parametrize("requirement", RUNNING, ids=lambda requirement: requirement.name)
def test_each_dependency_is_pinned_to_a_version_that_is_allowed(name: str, requirement: Requirement) -> None:
    assert pins(name)[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("requirement", CLAIMED, ids=str)
def test_each_lower_bound_is_the_version_that_is_tested(requirement: Requirement) -> None:
    bounds = [each.version for each in requirement.specifier if each.operator in {">=", "=="}]
    assert [Version(each) for each in bounds] == [
        pins("constraints-lowest.txt")[canonicalize_name(requirement.name)]
    ]


def test_hashed_versions_are_those_of_the_constraints() -> None:
    hashed = {
        name: version for name, version in pins("requirements-hashed.txt").items() if name not in FOREIGN
    }
    assert hashed == {name: pins("constraints.txt")[name] for name in hashed}
    assert {canonicalize_name(each.name) for each in RUNNING} - set(hashed) == {"torch"}


def needed(roots: list[Requirement]) -> set[str]:
    """The packages that the roots need here, directly or not, by the metadata of what is installed."""
    found: set[tuple[str, str]] = set()
    waiting = [(each, extra) for each in roots for extra in ("", *each.extras)]
    while waiting:
        package, extra = waiting.pop()
        if (canonicalize_name(package.name), extra) in found:
            continue
        found.add((canonicalize_name(package.name), extra))
        for each in map(Requirement, requires(package.name) or []):
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                waiting += [(each, inner) for inner in ("", *each.extras)]
    return {name for name, _ in found}


def test_all_that_running_and_testing_needs_is_hashed_and_nothing_else() -> None:
    roots = RUNNING + [Requirement(text) for name in ("test", "peers") for text in EXTRAS[name]]
    of_cuda = set(pins("constraints-cuda.txt")) - set(pins("constraints.txt"))
    assert needed(roots) - OF_TORCH - of_cuda == set(pins("requirements-hashed.txt")) - FOREIGN


def test_every_hashed_package_has_a_hash() -> None:
    blocks = re.split(
        r"^(?=[A-Za-z])", (ROOT / "requirements-hashed.txt").read_text(encoding="utf-8"), flags=re.M
    )
    assert len(blocks) > 100
    assert [block for block in blocks[1:] if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_releases_are_refused(name: str, version: str) -> None:
    (requirement,) = (each for each in RUNNING if each.name == name)
    assert version not in requirement.specifier


def test_the_mutation_run_names_files_that_exist() -> None:
    settings = PROJECT["tool"]["mutmut"]
    for pattern in (*settings["only_mutate"], *settings["pytest_add_cli_args_test_selection"]):
        assert list(ROOT.glob(pattern)), pattern

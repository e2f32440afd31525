"""Configurations and tasks are found in a checkout and inside an installed wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mhc_bench import resources

ROOT = Path(__file__).parent.parent


def test_a_checkout_uses_its_own_folders() -> None:
    assert resources.configs_dir() == ROOT / "configs"
    assert resources.tasks_dir() == ROOT / "tasks"


def test_an_installed_package_uses_what_the_wheel_put_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    places = wheel["targets"]["wheel"]["force-include"]
    for place in places.values():
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "mhc_bench")
    assert resources.configs_dir() == tmp_path / places["configs"]
    assert resources.tasks_dir() == tmp_path / places["tasks"]
    assert all((ROOT / name).is_dir() for name in places)

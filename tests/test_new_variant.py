"""`new-variant` writes a variant that runs as it stands, and nothing where it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from mhc_bench import cli, resources
from mhc_bench.config import load_suite
from mhc_bench.config.parts import read_yaml
from mhc_bench.kit import CHECKS, SLOW, check_variant
from mhc_bench.residual import registry, variant_options
from mhc_bench.suite import scaffold

ROOT = Path(__file__).parent.parent
FAST = [check.name for check in CHECKS if check.name not in SLOW]


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scaffold, "checkout_here", lambda: elsewhere)
    monkeypatch.setattr(registry, "_VARIANTS", dict(registry._VARIANTS))
    return elsewhere


def test_in_a_checkout_it_writes_a_module_and_a_configuration_and_nothing_else(checkout: Path) -> None:
    assert cli.main(["new-variant", "gated-skip"]) == 0
    module = checkout / "mhc_bench" / "residual" / "gated_skip.py"
    assert written(checkout) == {"mhc_bench/residual/gated_skip.py", "configs/variants/gated-skip.yaml"}
    spec = importlib.util.spec_from_file_location("mhc_bench.residual.gated_skip", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    assert registry.resolve("gated-skip") is loaded.GatedSkip
    part = read_yaml(checkout / "configs" / "variants" / "gated-skip.yaml")
    assert part == {"connection": "gated-skip", "options": variant_options(loaded.GatedSkip)}


def test_in_a_package_of_ones_own_it_conforms_as_it_stands(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["new-variant", "gated-skip", "--package", "my-variants"]) == 0
    assert written(elsewhere / "my-variants") == {
        "pyproject.toml",
        "src/my_variants/__init__.py",
        "src/my_variants/gated_skip.py",
        "configs/variants/gated-skip.yaml",
    }
    monkeypatch.syspath_prepend(elsewhere / "my-variants" / "src")
    target = "my_variants.gated_skip:GatedSkip"
    assert check_variant(target, only=FAST).failures == ()
    assert check_variant(target, {"gate": 0.5}, only=["start", "shapes"]).failures == ()
    project = tomllib.loads((elsewhere / "my-variants" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"mhc_bench.variants": {"gated-skip": target}}
    assert (
        read_yaml(elsewhere / "my-variants" / "configs" / "variants" / "gated-skip.yaml")["connection"]
        == target
    )
    for name in [name for name in sys.modules if name.startswith("my_variants")]:
        del sys.modules[name]


def test_outside_a_checkout_the_package_has_the_variants_name(elsewhere: Path) -> None:
    assert cli.main(["new-variant", "gated-skip"]) == 0
    assert "gated-skip/src/gated_skip/gated_skip.py" in written(elsewhere)


def test_a_package_that_is_there_is_left_alone_and_told_what_to_add(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "pyproject.toml").write_text("[project]\n")
    assert cli.main(["new-variant", "gated-skip", "--package", "mine"]) == 0
    assert (elsewhere / "mine" / "pyproject.toml").read_text() == "[project]\n"
    assert 'gated-skip = "mine.gated_skip:GatedSkip"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mhc", "already"),
        ("hc-res", "already"),
        ("Gated Skip", "such as 'gated-skip'"),
        ("gated_skip", "such as 'gated-skip'"),
        ("../evil", "such as 'evil'"),
        ("2x", "such as 'x'"),
        ("", "such as 'gated-skip'"),
        ("a:b", "such as 'a-b'"),
        ("class", "word of Python"),
    ],
)
def test_a_name_that_is_taken_or_is_none_is_refused_in_one_line(
    name: str, expected: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new-variant", name]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


def test_a_file_that_exists_is_not_overwritten_and_nothing_else_is_written(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = checkout / "configs" / "variants" / "gated-skip.yaml"
    part.parent.mkdir(parents=True)
    part.write_text("mine")
    assert cli.main(["new-variant", "gated-skip"]) == 2
    assert "gated-skip.yaml exists already" in capsys.readouterr().err
    assert written(checkout) == {"configs/variants/gated-skip.yaml"} and part.read_text() == "mine"


def test_where_the_second_file_cannot_be_written_the_first_is_taken_back(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "configs").write_text("no folder")
    assert cli.main(["new-variant", "gated-skip"]) == 2
    assert "nothing has been written" in capsys.readouterr().err
    assert [path.name for path in checkout.rglob("*")] == ["configs"]


def test_the_checkout_is_found_from_inside_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")
    assert scaffold.checkout_here() == ROOT
    monkeypatch.chdir(tmp_path)
    assert scaffold.checkout_here() is None


def test_a_suite_can_name_an_installed_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("gated-skip", "my.own:GatedSkip", "mhc_bench.variants")
    monkeypatch.setattr(resources, "entry_points", lambda group: [point] if group == point.group else [])
    suite = load_suite("smoke", ["variants=[baseline,gated-skip]"])
    assert suite.variants["gated-skip"].connection == "gated-skip"

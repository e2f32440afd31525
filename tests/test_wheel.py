"""The package as a wheel, installed outside the repository, beside a stranger's variant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from mhc_bench import cli

ROOT = Path(__file__).parent.parent
STRANGER = ROOT / "tests" / "fixtures" / "variant_package"


def outside() -> dict[str, str]:
    """This process's environment, without what would lead Python to the repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=project, env=outside(), check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with both wheels; the dependencies are those of this one, but for mhc-bench."""
    place = tmp_path_factory.mktemp("elsewhere")
    venv.create(place / "venv", with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place / "venv")}))
    for number, project in enumerate((ROOT, STRANGER)):
        with zipfile.ZipFile(build(project, place / f"wheel{number}")) as wheel:
            wheel.extractall(site)
    dependencies = [path for path in sys.path if path.endswith("-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies), encoding="utf-8")
    return place


def run(place: Path, *words: str) -> str:
    """What `mhc-bench` prints there, in a folder of its own."""
    command = [str(place / "venv" / "bin" / "python"), "-m", "mhc_bench", *words]
    done = subprocess.run(command, cwd=place, env=outside(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_what_runs_there(installed: Path) -> None:
    program = "import mhc_bench; print(mhc_bench.__file__)"
    command = [str(installed / "venv" / "bin" / "python"), "-c", program]
    done = subprocess.run(command, cwd=installed, env=outside(), capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(installed)


@pytest.mark.parametrize("what", ["suites", "models", "tasks"])
def test_an_installed_wheel_lists_what_a_checkout_lists(
    installed: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", what, "--json"]) == 0
    assert json.loads(run(installed, "list", what, "--json")) == json.loads(capsys.readouterr().out)


@pytest.mark.long
def test_a_variant_of_another_package_is_listed_and_planned_beside_the_shipped_ones(installed: Path) -> None:
    listed = {
        row["variant"]: row["connection"] for row in json.loads(run(installed, "list", "variants", "--json"))
    }
    assert listed["scaled"] == "scaled_residual:ScaledResidual"
    assert listed["mhc"] == "mhc"
    planned = run(installed, "run", "quick", "variants=[baseline,scaled]", "--dry-run")
    assert "6 of 6 runs are missing" in planned
    assert "scaled" in planned
    assert not (installed / "runs").exists()


def test_the_wheel_holds_no_tests_results_or_caches(installed: Path) -> None:
    (wheel,) = (installed / "wheel0").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"mhc_bench"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".so", ".pyc"))]
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "mhc-bench = mhc_bench.cli:main" in zipfile.ZipFile(wheel).read(entry).decode()

"""The workflows: that for results runs what this checkout has, and trusts no pull request."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tampering import FIXTURES

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "results.yml"
RECORDS = "results/records"


def jobs() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return found


def commands(job: str) -> dict[str, str]:
    """Name -> command of the steps of a job that run one, but for the installation."""
    named = {step["name"]: step["run"] for step in jobs()[job]["steps"] if "run" in step}
    installed = re.fullmatch(
        r"python -m pip install --constraint (\S*)constraints\.txt (\S+)", named["Install"]
    )
    assert installed is not None and installed.groups() in {("trusted/", "./trusted"), ("", ".")}
    return {name: command for name, command in named.items() if name != "Install"}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The folders that the checkouts make, with a few records, and `mhc-bench` as installed."""
    for folder in ("trusted", "submission", "."):
        shutil.copytree(FIXTURES / "version-2", tmp_path / folder / RECORDS)
        shutil.copytree(ROOT / ".github", tmp_path / folder / ".github")
    shim = tmp_path / "bin" / "mhc-bench"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mhc_bench "$@"\n')
    shim.chmod(0o755)
    return tmp_path


def run(command: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a step: `bash -e` in the workspace."""
    path = f"{workspace / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
    return subprocess.run(
        words, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.long
def test_every_command_of_a_pull_request_works_here(workspace: Path) -> None:
    for name, command in commands("submission").items():
        done = run(command, workspace)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    assert (workspace / "site" / "smoke" / "leaderboard.md").is_file()
    assert '<a href="smoke/leaderboard.' in (workspace / "site" / "index.html").read_text()


def test_the_site_is_made_by_the_commands_of_a_pull_request() -> None:
    def without_folder(job: str) -> set[str]:
        return {re.sub(r"\b(trusted|submission)/", "", command) for command in commands(job).values()}

    assert without_folder("site") < without_folder("submission")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_text(path.read_text() + "\n"), "differ"),
        (lambda path: path.unlink(), "Only in trusted/results/records"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "is a symbolic link"),
    ],
    ids=["changed", "removed", "linked"],
)
def test_a_published_record_that_is_touched_fails_the_pull_request(
    workspace: Path, change: Any, said: str
) -> None:
    command = commands("submission")["Nothing published was changed or removed"]
    change(next((workspace / "submission" / RECORDS).rglob("seed0.json")))
    done = run(command, workspace)
    assert done.returncode == 1 and said in done.stdout


def test_an_added_record_does_not(workspace: Path) -> None:
    path = next((workspace / "submission" / RECORDS).rglob("seed0.json"))
    path.with_name("seed9.json").write_text("{}")
    assert run(commands("submission")["Nothing published was changed or removed"], workspace).returncode == 0


def test_a_folder_whose_name_is_no_suite_gets_no_page(workspace: Path) -> None:
    records = workspace / "submission" / RECORDS
    for name in ("<b>x-0123456789", "-rf-0123456789", "$(id)-0123456789", "smoke", "x -0123456789"):
        (records / name).mkdir()
    shutil.rmtree(next(records.glob("smoke-*")))
    done = run(commands("submission")["The tables that they give"], workspace)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (workspace / "site").iterdir()] == ["index.html"]


def test_a_pull_request_runs_nothing_of_its_own_and_can_write_nothing() -> None:
    content = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert content["permissions"] == {}
    # YAML 1.1 reads the key `on` as true
    assert set(content[True]) == {"pull_request", "push", "workflow_dispatch"}
    job = jobs()["submission"]
    assert job["permissions"] == {"contents": "read"}
    trusted, untrusted = (step["with"] for step in job["steps"][:2])
    assert (trusted["path"], trusted["ref"]) == ("trusted", "${{ github.base_ref }}")
    assert untrusted["path"] == "submission"
    for command in (step["run"] for step in job["steps"] if "run" in step):
        assert not re.search(r"(^|\s)\.?/?submission/\S*\.(sh|py)|cd submission|\./submission", command)
        assert "${{" not in command


def test_only_the_deployment_of_main_can_write() -> None:
    writers = {name for name, job in jobs().items() if "write" in job["permissions"].values()}
    assert writers == {"deploy"}
    assert jobs()["deploy"]["needs"] == "site"
    assert "github.ref == 'refs/heads/main'" in jobs()["site"]["if"]
    assert not [step for step in jobs()["deploy"]["steps"] if "run" in step]


def actions(workflow: Path) -> list[dict[str, Any]]:
    """The steps of a workflow that use an action."""
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    return [step for job in content["jobs"].values() for step in job["steps"] if "uses" in step]


WORKFLOWS = sorted(WORKFLOW.parent.iterdir())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_checkouts_leave_no_credentials(workflow: Path) -> None:
    assert actions(workflow)
    for step in actions(workflow):
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        if "checkout" in step["uses"]:
            assert step["with"]["persist-credentials"] is False


def test_an_action_has_one_version_in_all_workflows() -> None:
    used = {step["uses"] for workflow in WORKFLOWS for step in actions(workflow)}
    assert len({name.split("@")[0] for name in used}) == len(used)


def test_the_hashes_are_installed_by_the_commands_of_the_security_page() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("```bash", 1)[1].split("```")[0]
    shown = [line.split("#")[0].strip() for line in page.strip().splitlines()]
    content = yaml.safe_load((WORKFLOW.parent / "tests.yml").read_text(encoding="utf-8"))
    run = [step["run"] for step in content["jobs"]["hashes"]["steps"] if "run" in step]
    assert any("--require-hashes" in line for line in shown) and run[: len(shown)] == shown


def test_the_citation_names_this_version_and_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert {"cff-version", "message", "title", "authors", "type"} <= cited.keys()


def test_the_readme_cites_as_the_citation_file_does() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    entry = (ROOT / "README.md").read_text(encoding="utf-8").split("```bibtex")[1].split("```")[0]
    fields = dict(re.findall(r"(\w+)\s*= \{+(.*?)\}", entry))
    assert fields == {
        "title": cited["title"],
        "author": " and ".join(each["name"] for each in cited["authors"]),
        "version": cited["version"],
        "date": str(cited["date-released"]),
    }


def test_the_guide_and_the_template_name_what_there_is() -> None:
    guide = (ROOT / "docs" / "submitting.md").read_text(encoding="utf-8")
    template = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    for path in re.findall(
        r"(?:docs|results|\.github)/[A-Za-z0-9_./-]+\.(?:md|yml|json)\b", guide + template
    ):
        if ".reproduction-" not in path:
            assert (ROOT / path).exists(), path

"""Every check refuses what it is there for: valid records changed in that respect, digests made right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tampering import FIXTURES, Content, Records, each, put
from verify_cases import CASES, Case
from verify_tamperings import (
    OTHER,
    broken,
    cancelling,
    deleted,
    editions,
    judged,
    over_depth,
    repeated,
    reproduction_of,
)

from mhc_bench.evidence.items import items_path
from mhc_bench.evidence.reproduction import Difference
from mhc_bench.evidence.verify import Tools, UnavailableError, explained, verify
from mhc_bench.files import file_digest

LACKING = {"json": {"seeds"}, "schema": {"seeds"}, "item file": {"item digest"}}
"""A file that is refused is lacking afterwards: what else must see that."""


@pytest.fixture
def records(tmp_path: Path, request: pytest.FixtureRequest) -> Records:
    return Records(tmp_path, getattr(request, "param", 2))


@pytest.mark.parametrize("version", [1, 2])
def test_the_untouched_records_have_no_problem(version: int, tmp_path: Path) -> None:
    report = Records(tmp_path, version).verify()
    assert report.problems == ()
    assert report.records == (2 if version == 1 else 6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}: {case.what} (v{case.version})")
def test_the_check_that_is_meant_refuses_the_tampering_and_no_other(case: Case, tmp_path: Path) -> None:
    records = Records(tmp_path, case.version)
    case.tamper(records)
    report = records.verify()
    assert {problem.check for problem in report.problems} - LACKING.get(case.check, set()) == {case.check}
    assert all(problem.file and problem.found and problem.expected for problem in report.problems)


@pytest.mark.parametrize(("field", "value"), [("step", 220), ("product", cancelling(0.1))])
def test_gains_and_matrices_over_depth_that_agree_are_no_problem(
    records: Records, field: str, value: object
) -> None:
    records.change("hc/seed1", over_depth(field, value))
    assert records.verify().problems == ()


def slower_at_the_end(steps: int, seconds: float) -> Callable[[Content], None]:
    """The last steps were ten times slower, on other hardware; all took `seconds` medians of before."""

    def change(content: Content) -> None:
        training, identity = content["training"], content["identity"]
        median = training["step_seconds"]["p50"]
        span = {"cost_id": identity["cost_id"], "devices": 1, "nodes": 1, "sharding": "none"}
        content["provenance"]["hardware_changes"] = [
            {"after_step": 0} | span,
            {"after_step": training["steps"] - steps} | span | {"devices": 2},
        ]
        training["step_seconds"] = {name: 10 * value for name, value in training["step_seconds"].items()}
        training["tokens_per_second"] /= 10
        content["cost"]["train_seconds"] = training["seconds"] = seconds * median

    return change


def test_a_run_that_went_on_with_slower_hardware_took_the_time_that_its_last_steps_say(
    records: Records,
) -> None:
    steps = records.read("hc/seed1")["training"]["steps"]
    last = steps // 10
    records.change("hc/seed1", slower_at_the_end(last, steps - last + 10 * last))
    assert records.verify().problems == ()


@pytest.mark.parametrize(("last", "seconds"), [(20, 100), (0, 1000)])
def test_a_run_that_went_on_with_other_hardware_for_less_time_than_its_steps_is_refused(
    records: Records, last: int, seconds: float
) -> None:
    records.change("hc/seed1", slower_at_the_end(last, seconds))
    assert {problem.check for problem in records.verify().problems} == {"training summary"}


def test_an_a_a_run_beside_the_others_stands_every_check(records: Records) -> None:
    repeated()(records)
    assert not records.verify().problems


def test_every_check_has_a_case() -> None:
    only_notes = {"environment"}
    assert {case.check for case in CASES} == explained().keys() - only_notes


def test_the_documentation_says_of_every_check_what_it_proves() -> None:
    page = (FIXTURES.parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    for name, proves in explained().items():
        assert f"| {name} | {proves} |" in page


def test_all_problems_are_told_at_once(records: Records) -> None:
    records.change("hc/seed1", put("training.tokens", 1))
    records.change("mhc/seed0", put("digests.token_stream", OTHER))
    records.path("mhc/seed1").write_text("{")
    report = records.verify()
    checks = {problem.check for problem in report.problems}
    assert checks == {"training summary", "token stream", "json", "seeds"}
    assert len({problem.file for problem in report.problems}) >= 3


def test_a_correction_replaces_what_it_supersedes(records: Records) -> None:
    old = records.path("hc/seed1")
    digest = file_digest(old)
    shutil.copyfile(old, records.path("hc/seed1-2"))
    shutil.copyfile(items_path(old), items_path(records.path("hc/seed1-2")))
    records.change("hc/seed1-2", each(put("supersedes", digest), put("correction", "a wrong note")))
    assert records.verify().problems == ()


def test_a_record_has_one_successor(records: Records) -> None:
    editions(records, 2, 3)
    found = {problem.found for problem in records.verify().problems if problem.check == "supersedes"}
    assert found == {f"supersedes what {records.path('hc/seed1-2')} supersedes", "supersedes seed1.json"}


def test_a_failed_run_counts_as_reported_and_may_be_replaced_without_a_reason(
    records: Records, tmp_path: Path
) -> None:
    result = records.read("hc/seed1")
    items = items_path(records.path("hc/seed1")).rename(tmp_path / "kept")
    records.change("hc/seed1", broken)
    assert records.verify().problems == ()
    items.rename(items_path(records.path("hc/seed1-2")))
    records.write("hc/seed1-2", result | {"supersedes": file_digest(records.path("hc/seed1"))})
    assert records.verify().problems == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"by": "a reader"},
        judged("inside interval", 0.5, (0, 1)),
        judged("outside interval", 1.5, (0, 1)),
        judged("no interval", 1.5, None),
        {
            **judged("outside interval", None, (0, 1)),
            "differences": (Difference(what="status", recorded="complete", here="diverged"),),
        },
    ],
    ids=lambda changes: changes.get("verdict", "identical bits"),
)
def test_a_reproduction_of_the_record_beside_it_is_told(records: Records, changes: dict[str, Any]) -> None:
    reproduction_of(**changes)(records)
    report = records.verify()
    assert report.problems == ()
    (said,) = [note.text for note in report.notes if note.check == "reproduction"]
    assert said.endswith(changes.get("verdict", "identical bits"))


def test_what_was_not_checked_is_said(tmp_path: Path) -> None:
    report = verify([FIXTURES / "version-1"], Tools(count=_unavailable))
    said = {note.check: note.text for note in report.notes}
    assert said["parameters"] == "not recounted: torch is not installed"
    assert said["scores"] == "not recomputed: no per-item outcomes"
    assert "does not tell which seeds" in said["seeds"]
    assert said["protocol id"] == "ids were not recomputed"
    assert report.problems == ()


def _unavailable(configuration: object, flops_rule: int) -> dict[str, int]:
    raise UnavailableError("torch is not installed")


def test_uncommitted_code_and_mixed_versions_are_told(records: Records) -> None:
    records.change("hc/seed1", put("provenance.dirty", True))
    records.change("mhc/seed0", put("provenance.packages.numpy", "1.0"))
    texts = [note.text for note in records.verify().notes if note.check == "environment"]
    assert len(texts) == 2


def test_a_single_record_can_be_checked_alone(records: Records) -> None:
    report = verify([records.path("hc/seed1")], records.tools)
    assert report.problems == ()
    assert any("no folder was given" in note.text for note in report.notes)


def test_a_variant_may_have_fewer_seeds_if_no_more_were_started(records: Records) -> None:
    deleted("mhc/seed1")(records)
    for run in ("baseline/seed0", "baseline/seed1", "hc/seed0", "hc/seed1"):
        records.change(run, put("started.variants", ["baseline", "hc"]))
    records.change("mhc/seed0", put("started", {"seeds": [0], "variants": ["mhc"]}))
    assert records.verify().problems == ()


def test_every_variant_of_version_1_must_have_every_seed(tmp_path: Path) -> None:
    records = Records(tmp_path, 1)
    records.change("hc/seed0", each(put("identity.seed", 4), put("configuration.seed", 4)))
    records.path("hc/seed0").rename(records.path("hc/seed4"))
    missing = [problem.found for problem in records.verify().problems if problem.check == "seeds"]
    assert missing == ["no record of baseline seed 4", "no record of hc seed 0"]

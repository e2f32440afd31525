"""Scores of groups, what is said where a score is no mean, and that failed and diverged runs are rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tampering import Content, Records, put

from mhc_bench.evidence.verify.scores import standard_error

RUN, GROUP, MEMBERS = "hc/seed1", "both", ("world_mmlu", "world_piqa")


@pytest.fixture
def grouped(tmp_path: Path) -> Records:
    """Two tasks of one run made into a group that is scored as a whole; the others' groups do not matter."""
    records = Records(tmp_path)
    for path in records.folder.rglob("seed*"):
        if not path.is_relative_to(records.path(RUN).parent) or "seed1" not in path.name:
            path.unlink()
    records.change(RUN, put("started", {"seeds": [1], "variants": ["hc"]}))
    records.change_items(RUN, put("groups", {GROUP: list(MEMBERS)}))
    records.change(RUN, group)
    return records


def group(content: Content) -> None:
    tasks: Any = content["evaluation"]["tasks"]
    parts = {name: tasks.pop(name) for name in MEMBERS}
    n = sum(part["n"] for part in parts.values())
    kept = ("value", "n", "gold_loglikelihood", "chance", "prior")
    tasks[GROUP] = {
        **parts[MEMBERS[0]],
        "n": n,
        "value": sum(part["n"] * part["value"] for part in parts.values()) / n,
        "subtasks": {name: {key: part[key] for key in kept} for name, part in parts.items()},
    }


def test_a_group_is_the_mean_of_its_tasks(grouped: Records) -> None:
    assert grouped.verify().problems == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", 0.99),
        ("n", 15),
        (f"subtasks.{MEMBERS[1]}.value", 0.99),
        (f"subtasks.{MEMBERS[1]}.n", 7),
        ("subtasks", {}),
    ],
)
def test_a_group_that_is_not_is_refused(grouped: Records, field: str, value: object) -> None:
    grouped.change(RUN, put(f"evaluation.tasks.{GROUP}.{field}", value))
    assert "scores" in grouped.refused_by()


def test_a_score_that_is_no_mean_is_left_with_a_note(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.change_items(RUN, put("tasks.world_mmlu.aggregation", "median"))
    report = records.verify()
    assert report.problems == ()
    assert any("no mean (median)" in note.text for note in report.notes)


def test_the_error_of_a_mean_is_the_sample_deviation_over_the_root_of_n() -> None:
    assert standard_error([0.0, 1.0, 1.0, 1.0]) == pytest.approx(0.25)
    assert standard_error([1.0]) is None


def test_a_failed_run_is_a_row_and_counts_as_reported(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (records.path(RUN).with_name("seed1.items.json.gz")).unlink()
    empty: Content = {
        "status": "failed",
        "failure": "out of memory",
        "training": None,
        "digests": None,
        "mechanism": None,
        "evaluation": None,
        "numerics": None,
        "data": {},
        "cost": {"step_time": None, "train_seconds": None, "evaluate_seconds": None},
        "side_files": {},
    }
    records.change(RUN, lambda content: content.update(empty))
    assert records.verify().problems == ()


def test_a_diverged_run_is_a_row(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (records.path(RUN).with_name("seed1.items.json.gz")).unlink()

    def diverge(content: Content) -> None:
        training: Any = content["training"]
        curve: Any = content["mechanism"]["curves"]["loss"]
        content |= {"status": "diverged", "evaluation": None, "side_files": {}}
        content["cost"]["evaluate_seconds"] = None
        content["digests"]["token_stream"] = "ab" * 32
        training |= {"steps": 110, "tokens": 110 * 512, "diverged_step": 110, "nonfinite_steps": 1}
        training |= {"validation": training["validation"][:1], "final_steps": None, "last_loss": None}
        curve["steps"], curve["values"] = curve["steps"][:55], curve["values"][:55]
        training["final_loss"] = sum(curve["values"][-3:]) / 3
        for name, other in content["mechanism"]["curves"].items():
            kept = [i for i, step in enumerate(other["steps"]) if step <= 110]
            content["mechanism"]["curves"][name] = {
                key: [other[key][i] for i in kept] for key in ("steps", "values")
            }
        for name, probe in content["mechanism"]["probes"].items():
            if name in content["mechanism"]["curves"]:
                probe["final"] = content["mechanism"]["curves"][name]["values"][-1]

    records.change(RUN, diverge)
    assert records.verify().problems == ()

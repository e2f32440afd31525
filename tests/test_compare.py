"""`mhc-bench compare`: what it says of two variants, in words and in numbers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evidence_factory import study_records, suite_records, write_all
from scipy import stats
from test_a_a_runs import with_repeats

from mhc_bench import cli
from mhc_bench.evidence import Record, load_board, read_records
from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.pairwise import numbers, paired, words

QUICK = Path(__file__).parent.parent / "results" / "records" / "quick-cc4f49c1b1"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["compare", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def measure(content: dict[str, Any], key: str) -> dict[str, Any]:
    (found,) = (each for each in content["arms"][0]["measures"] if each["metric"] == key)
    return dict(found)


def test_the_numbers_are_those_of_scipys_paired_test_on_the_records(
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = as_json(capsys, str(QUICK), "hc", "mhc")
    board = load_board(QUICK)
    runs = {row.variant: [row.runs[seed].validation_loss for seed in range(5)] for row in board.arms[0].rows}
    oracle = stats.ttest_rel(runs["hc"], runs["mhc"])
    ends = oracle.confidence_interval(0.95)
    found = measure(content, "validation_loss")
    assert found["p"] == pytest.approx(oracle.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((ends.low, ends.high))
    assert found["mean"] == pytest.approx(sum(runs["hc"]) / 5)  # type: ignore[arg-type]
    assert found["reference"]["mean"] == pytest.approx(sum(runs["mhc"]) / 5)  # type: ignore[arg-type]
    assert content["arms"][0]["variants"] == ["hc", "mhc"]
    assert content["arms"][0]["seeds"] == [0, 1, 2, 3, 4]


def test_the_other_way_round_every_difference_changes_its_sign(capsys: pytest.CaptureFixture[str]) -> None:
    there = as_json(capsys, str(QUICK), "hc", "mhc")
    back = as_json(capsys, str(QUICK), "mhc", "hc")
    for one, other in zip(there["arms"][0]["measures"], back["arms"][0]["measures"], strict=True):
        assert one["difference"] == pytest.approx(-other["difference"])
        assert (one["low"], one["p"]) == pytest.approx((-other["high"], other["p"]))
    for one, other in zip(there["arms"][0]["budgets"], back["arms"][0]["budgets"], strict=True):
        assert one["relative_cost"] == pytest.approx(1 / other["relative_cost"])
        assert one["reached"] == (other["reached"] and pytest.approx(other["reached"][::-1]))


def test_tasks_come_with_both_errors_and_the_corrected_p(capsys: pytest.CaptureFixture[str]) -> None:
    (arm,) = as_json(capsys, str(QUICK), "hc", "baseline")["arms"]
    assert len(arm["tasks"]) == 16
    for task in arm["tasks"]:
        assert task["p_holm"] >= task["p"]
        assert (task["verdict"] in ("better", "worse")) == (task["p_holm"] <= 0.05)
        by_item = task["by_item"]
        assert by_item["seed_error"] > 0 and by_item["document_error"] > 0
        assert by_item["new_items"][0] <= by_item["same_items"][0]
    assert {each["budget"] for each in arm["budgets"]} == {
        "tokens",
        "FLOPs",
        "wall-clock time",
        "peak memory",
    }
    assert {each["n"] for each in arm["coverage"]} == {5}


def test_the_words_say_difference_interval_verdict_and_what_could_have_been_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(suite_records(), tmp_path)
    assert cli.main(["compare", str(tmp_path), "hc", "baseline"]) == 0
    out = capsys.readouterr().out
    assert "hc minus baseline: 3 pairs (seeds 0, 1, 2)." in out
    assert (
        "Validation loss (nats/token): hc 1.0547, baseline 1.1287; difference -0.0740 (lower is better), "
        "95 % interval (-0.1334, -0.0146), p 0.033: better. Differences from 0.0780 on (0.0406 to 0.4902) "
        "show with 80 % power." in out
    )
    assert "no verdict below 5 seeds in world_bbh, world_mmlu, world_trivia" in out
    assert "Equal FLOPs: " in out and "Equal wall-clock time: " in out
    assert "Gap: no A/A runs" in out
    assert "too sure" in out


def test_the_floor_is_told_where_there_are_a_a_runs() -> None:
    arm, row = paired(collate(with_repeats()).arms[0], "mhc", "baseline")
    (line,) = (line for line in words(arm, row) if line.startswith("A/A floor"))
    assert line.endswith("sd 0.0078, at most 0.0100 over 3 pairs.")
    (floor,) = numbers(arm, row)["floor"]
    assert floor["measures"]["validation_loss"]["largest"] == pytest.approx(0.010)


def test_the_floor_stays_the_baselines_when_two_others_are_compared() -> None:
    arm, row = paired(collate(with_repeats()).arms[0], "mhc", "hc")
    (line,) = (line for line in words(arm, row) if line.startswith("A/A floor"))
    assert line.endswith("at most 0.0100 over 3 pairs.")


def test_every_arm_of_a_study_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(study_records(), tmp_path)
    assert [arm["arm"] for arm in as_json(capsys, str(tmp_path), "hc", "mhc")["arms"]] == ["hot", "mild"]
    assert cli.main(["compare", str(tmp_path), "hc", "mhc"]) == 0
    assert "hc diverged in 1 of 3 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mhcc", "baseline"], "unknown variant 'mhcc'.*did you mean 'mhc'"),
        (["mhc", "base"], "unknown variant 'base': expected one of baseline, hc, mhc"),
        (["mhc", "mhc"], "mhc against itself: expected two different variants"),
        (["mhc", "hc", "--suite", "slow"], "has no folder slow-<protocol id>"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    write_all(suite_records(), tmp_path)
    assert cli.main(["compare", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_several_suites_in_one_folder_ask_for_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(QUICK.parent), "hc", "mhc"]) == 2
    assert "--suite names one" in capsys.readouterr().err
    assert cli.main(["compare", str(QUICK.parent), "hc", "mhc", "--suite", "quick"]) == 0


@pytest.mark.parametrize("pair", [("hc", "mhc"), ("mhc", "hc"), ("hc", "baseline")])
def test_runs_of_variants_that_are_not_compared_are_no_gap(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = as_json(capsys, str(QUICK), *pair)["arms"][0]["gaps"]
    assert not any("has no record" in gap for gap in gaps)


def test_a_run_of_one_of_the_two_that_has_no_record_is_a_gap() -> None:
    board = collate([each for each in read_records(QUICK) if not _is(each, "hc", 3)])
    for first, second in (("hc", "mhc"), ("mhc", "hc")):
        arm, _ = paired(board.arms[0], first, second)
        assert arm.missing == (("hc", 3),)
    arm, _ = paired(board.arms[0], "mhc", "baseline")
    assert arm.missing == ()


def _is(record: Record, variant: str, seed: int) -> bool:
    return (record.identity.variant, record.identity.seed) == (variant, seed)

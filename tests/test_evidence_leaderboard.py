"""The leaderboard: what it refuses, what it says, and that equal records give equal bytes."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from evidence_factory import (
    LOSSES,
    SEEDS,
    edited,
    make_evidence,
    make_record,
    sha,
    study_records,
    suite_records,
    write_all,
)

from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence import assemble_record
from mhc_bench.evidence.collate import Board, collate
from mhc_bench.evidence.leaderboard import (
    Contents,
    build_leaderboard,
    load_board,
    page,
    readme_fragment,
    render_summary,
)
from mhc_bench.evidence.markdown import escape

DATA_FILES = [f"leaderboard.{suffix}" for suffix in ("csv", "html", "json", "md", "tex")]


def metrics(board_json: str) -> dict[tuple[str, str, str], dict[str, object]]:
    """The JSON's metrics by (arm, variant, metric)."""
    rows = json.loads(board_json)["metrics"]
    return {(row["arm"], row["variant"], row["metric"]): row for row in rows}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The leaderboard of the three-by-three suite."""
    folder = tmp_path_factory.mktemp("quick")
    build_leaderboard(write_all(suite_records(), folder / "records"), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def study() -> Board:
    """A study of two arms in which one run diverged."""
    return collate(study_records())


def test_the_page_the_data_and_the_figures_are_written(built: Path) -> None:
    figures = [f"{name}.{suffix}" for name in ("gain", "gradient_norm", "loss") for suffix in ("png", "svg")]
    assert sorted(path.name for path in built.iterdir()) == sorted([*figures, *DATA_FILES])


def test_the_same_records_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    # Written in another order, below another folder.
    write_all(list(reversed(suite_records())), tmp_path / "elsewhere" / "records")
    again = build_leaderboard(tmp_path / "elsewhere", tmp_path / "elsewhere" / "out")
    assert {path.name: path.read_bytes() for path in again} == {
        path.name: path.read_bytes() for path in built.iterdir()
    }


def test_a_changed_record_changes_the_page(built: Path, tmp_path: Path) -> None:
    records = [make_record("mhc", 0, loss=1.0), *suite_records()[:-3], *suite_records()[-2:]]
    build_leaderboard(write_all(records, tmp_path / "records"), tmp_path / "out")
    for name in DATA_FILES:
        assert (tmp_path / "out" / name).read_bytes() != (built / name).read_bytes()


def test_the_numbers_are_those_of_the_records(built: Path) -> None:
    found = metrics((built / "leaderboard.json").read_text())["", "hc", "validation_loss"]
    assert found["mean"] == pytest.approx(sum(LOSSES["hc"]) / 3)
    assert found["difference"] == pytest.approx(-0.074)
    assert found["verdict"] == "better"
    assert (found["n"], found["pairs"]) == (3, 3)


def test_the_csv_has_one_line_per_variant_and_metric_and_agrees_with_the_json(built: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((built / "leaderboard.csv").read_text())))
    keys = [(line["arm"], line["variant"], line["metric"]) for line in lines]
    assert len(set(keys)) == len(keys)
    from_json = metrics((built / "leaderboard.json").read_text())
    assert set(keys) == set(from_json)
    for line, key in zip(lines, keys, strict=True):
        stated = from_json[key]["mean"]
        assert line["mean"] == ("" if stated is None else repr(stated))


def test_the_page_leads_with_validation_loss_and_gold_loglikelihood(built: Path) -> None:
    text = (built / "leaderboard.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[1] == "## Validation loss and the gold answers' log-likelihood"
    assert text.index("Validation loss (nats/token)") < text.index("Gold answers' log-likelihood")
    assert text.index("Gold answers' log-likelihood, mean over 2 tasks") < text.index("loss.png")


def test_the_page_says_what_its_signs_mean_and_who_was_compared(built: Path) -> None:
    text = (built / "leaderboard.md").read_text()
    for said in (
        "standard deviation over seeds",
        "95 % interval",
        "not shown",
        "the baseline's best of three on development seeds",
        "0.004, linear schedule",
        "**Seeds**: 0, 1, 2",
        "commit 0123456789ab",
        make_record().identity.protocol_id,
        make_record("mhc", 2).digest[:16],
    ):
        assert said in text, said


def test_rows_stand_in_a_fixed_order_whatever_the_results(study: Board) -> None:
    assert study.variants == ("baseline", "hc", "mhc")
    assert [row.variant for row in study.arms[0].rows] == ["baseline", "hc", "mhc"]


def test_scores_stand_with_chance_prior_items_and_both_errors(built: Path) -> None:
    text = (built / "leaderboard.md").read_text()
    assert "| chance | 31.5 | 25.0 | - | - |" in text
    assert "| prior | 33.0 | 33.0 | 33.0 | 33.0 |" in text
    assert "| baseline | 43.0 ± 3.0 | 83.0 ± 3.0 | 48.0 ± 3.0 | 58.0 ± 3.0 |" in text
    assert "| world_bbh | acc,none | 3 | 250 | 1.0 | 31.5 | 33.0 | 3.1 |" in text


def test_a_task_without_gold_loglikelihood_takes_no_part_in_its_mean(built: Path) -> None:
    found = metrics((built / "leaderboard.json").read_text())
    assert found["", "baseline", "gold_loglikelihood"]["mean"] == pytest.approx(-1.99)
    assert found["", "baseline", "gold_loglikelihood/world_trivia"]["mean"] is None


def test_an_interval_that_includes_zero_reads_not_shown() -> None:
    board = collate(suite_records())
    line = next(row for row in render_summary(board) if row[1] == "mhc" and "nats/token" in row[0])
    assert line[-1] == "not shown (would need about 9 seeds)"


def test_one_seed_claims_no_order() -> None:
    board = collate([make_record(variant, 0) for variant in LOSSES])
    text = page(Contents(board))
    assert "one seed, no interval" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert not any(f"| {word} |" in line for line in rows for word in ("better", "worse"))


def test_a_diverged_run_is_a_row_and_takes_the_verdict(study: Board) -> None:
    hot = study.arms[0]
    text = page(Contents(study))
    assert "hc diverged in 1 of 3 seeds" in text
    assert "diverged at step 70" in text
    assert [row.diverged for row in hot.rows] == [(), (2,), ()]
    survivors = [cell for cell in render_summary(study) if cell[1] == "hc" and cell[0].startswith("hot")]
    assert all(cell[-1] == "hc diverged in 1 of 3 seeds" for cell in survivors)
    assert survivors[0][3] == "2"


def test_a_diverged_baseline_takes_every_verdict() -> None:
    records = [record for record in suite_records() if record.identity.variant != "baseline"]
    base = [make_record("baseline", seed, diverged=70 if seed == 1 else None) for seed in SEEDS]
    board = collate([*base, *records])
    verdicts = {row[1]: row[-1] for row in render_summary(board) if "nats/token" in row[0]}
    assert verdicts["mhc"] == verdicts["hc"] == "baseline diverged in 1 of 3 seeds"


def test_a_study_sets_its_arms_side_by_side(study: Board) -> None:
    text = page(Contents(study))
    assert "| Variant | hot | mild |" in text
    assert "| hc | 7.8e+18 to 7.8e+20 | 583.8 to 1751 |" in text
    assert "| hc | 1 of 3 | 0 of 3 |" in text
    for arm in study.arms:
        assert f"**Protocol id**: {arm.protocol_id}" in text


def test_a_study_says_in_which_fields_its_arms_differ(study: Board) -> None:
    text = page(Contents(study))
    assert "| Arm | Protocol id | optimizer.learning_rate |" in text
    assert f"| hot | {study.arms[0].protocol_id} | 0.1 |" in text


def test_what_was_not_measured_says_so() -> None:
    evidence = [replace(make_evidence(name, 0), step_time=None, evaluation=None) for name in LOSSES]
    text = page(Contents(collate([assemble_record(one) for one in evidence])))
    assert "| mhc | 349,368 | 49,368 | not measured | not measured | 512 | 4 | not measured |" in text
    assert "Downstream" not in text


def test_times_from_two_kinds_of_hardware_are_not_averaged() -> None:
    records = suite_records()
    records[4] = edited(records[4], identity={"cost_id": "ffffffffff"})
    text = page(Contents(collate(records)))
    assert "| hc | 306,208 | 6,208 | not comparable: 2 cost ids |" in text


def test_missing_and_failed_runs_are_named() -> None:
    failed = assemble_record(
        replace(make_evidence("hc", 1), training=None, evaluation=None, failure="out of memory")
    )
    kept = [
        record for record in suite_records() if (record.identity.variant, record.identity.seed) != ("hc", 1)
    ]
    text = page(Contents(collate([*kept[:-1], failed])))
    assert "**Gap**: mhc has no run for seed 2" in text
    assert "**Gap**: hc seed 1 is failed: out of memory" in text


def test_a_suite_of_one_variant_has_a_page(tmp_path: Path) -> None:
    records = [make_record("baseline", seed) for seed in SEEDS]
    build_leaderboard(write_all(records, tmp_path / "records"), tmp_path / "out")
    assert (
        "| baseline | 1.1287 ± 0.0183 | 3 | - | - | - | - |"
        in (tmp_path / "out" / "leaderboard.md").read_text()
    )


def test_two_protocol_ids_in_one_table_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    records = suite_records()
    records[0] = edited(records[0], identity={"protocol_id": "ffffffffff"})
    folder = write_all(records, tmp_path / "records")
    with pytest.raises(UsageError) as caught:
        build_leaderboard(folder, tmp_path / "out")
    assert "ffffffffff" in str(caught.value)
    assert records[1].identity.protocol_id in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_suites_in_one_page_are_refused() -> None:
    with pytest.raises(UsageError, match="quick, smoke"):
        collate([make_record(), make_record(suite="smoke")])


def test_the_same_run_twice_is_refused() -> None:
    with pytest.raises(RunError, match="two records of hc seed 1"):
        collate([*suite_records(), make_record("hc", 1)])


def test_one_variant_with_two_sets_of_options_is_refused() -> None:
    records = suite_records()
    records[4] = edited(records[4], identity={"options": {"streams": 8}})
    with pytest.raises(RunError, match=r"options differs.*hc seed 0.*'streams': 4.*hc seed 1.*'streams': 8"):
        collate(records)


@pytest.mark.parametrize("kind", ["shared_weights", "token_stream"])
def test_runs_that_are_no_pair_are_refused(kind: str) -> None:
    records = suite_records()
    records[5] = edited(records[5], digests={kind: sha("other")})
    with pytest.raises(RunError) as caught:
        collate(records)
    assert sha("other") in str(caught.value)
    assert "baseline seed 2" in str(caught.value)
    assert "hc seed 2" in str(caught.value)


def test_other_seeds_may_have_other_weights() -> None:
    digests = {record.digests.shared_weights for record in suite_records() if record.digests}
    assert len(digests) == 3
    collate(suite_records())


def test_a_run_that_diverged_early_still_pairs_though_its_token_stream_is_shorter() -> None:
    records = [make_record("baseline", 0), make_record("hc", 0, diverged=70)]
    streams = {record.digests.token_stream for record in records if record.digests}
    assert len(streams) == 2
    collate(records)


def test_runs_on_other_data_are_refused() -> None:
    records = suite_records()
    records[3] = edited(records[3], data={"fingerprint": "another source"})
    with pytest.raises(RunError, match=r"data differs.*baseline seed 0.*hc seed 0.*another source"):
        collate(records)


def test_text_of_a_record_is_no_markup_on_the_page() -> None:
    hostile = "<img src=x onerror=alert(1)> | [link](https://evil.example) `code` **bold**\n# heading"
    records = [assemble_record(replace(make_evidence(name, 0), note=hostile)) for name in LOSSES]
    text = page(Contents(collate(records)))
    assert "<img" not in text
    assert "https://" not in text
    assert "[link]" not in text
    assert "\n# heading" not in text
    assert "onerror=alert(1)" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("a\nb", "a b"),
        ("<b>", "&lt;b&gt;"),
        ("x_y", "x_y"),
        ("[a](b)", r"\[a\](b)"),
        ("http://evil.example", "http:&#47;&#47;evil.example"),
        ("see www.evil.example, WWW.evil.example", "see www&#46;evil.example, WWW&#46;evil.example"),
        ("mailto:a@evil.example", "mailto:a@<!-- -->evil.example"),
    ],
)
def test_markdown_cells_are_escaped(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_figures_carry_no_date_and_no_program_version(built: Path) -> None:
    assert b"Software" not in (built / "loss.png").read_bytes()
    assert b"<dc:date>" not in (built / "loss.svg").read_bytes()


def test_the_readme_fragment_shows_table_and_figures(tmp_path: Path, study: Board) -> None:
    write_all(suite_records(), tmp_path)
    text = readme_fragment(load_board(tmp_path), "results/quick")
    assert "](results/quick/loss.png)" in text
    assert "-0.0740 | (-0.1334, -0.0146) | 3 | better" in text
    assert "Peak composite gain by arm" in readme_fragment(study, "results/study")


def test_records_from_several_folders_make_one_study(tmp_path: Path) -> None:
    write_all(study_records(), tmp_path)
    folders = sorted(path for path in tmp_path.iterdir())
    assert len(folders) == 2
    assert [arm.name for arm in load_board(folders).arms] == ["hot", "mild"]


def test_every_line_of_the_terminal_summary_has_the_same_cells(study: Board) -> None:
    lines = render_summary(study)
    assert len({len(line) for line in lines}) == 1
    assert lines[0][1] == "Variant"

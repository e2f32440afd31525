"""Records: strict, frozen, canonical, whole on disk, and refused in one line when damaged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evidence_factory import curves, make_evidence, make_record, training_summary
from pydantic import ValidationError

from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence import (
    GAIN_BACKWARD,
    GAIN_FORWARD,
    LOSS,
    Record,
    assemble_record,
    json_schema,
    read_record,
    read_records,
    thin_curve,
    write_record,
)

SCHEMA = Path(__file__).resolve().parent.parent / "results" / "schema.json"


def damaged(record: Record, path: str, value: object) -> str:
    """The record's JSON with one dotted field replaced."""
    content = record.model_dump(mode="json")
    target: Any = content
    *parents, last = path.split(".")
    for step in parents:
        target = target[step]
    target[last] = value
    return json.dumps(content)


def test_a_record_survives_the_disk_unchanged(tmp_path: Path) -> None:
    record = make_record("mhc", 1)
    write_record(record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    record = make_record("hc", 2)
    write_record(record, tmp_path / "record.json")
    assert record.digest == hashlib.sha256((tmp_path / "record.json").read_bytes()).hexdigest()


def test_a_record_written_twice_gives_the_same_bytes_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    record = make_record()
    content = record.model_dump(mode="json")
    shuffled = Record.model_validate_json(json.dumps(dict(reversed(content.items()))))
    write_record(record, tmp_path / "seed0.json")
    write_record(shuffled, tmp_path / "seed1.json")
    assert (tmp_path / "seed0.json").read_bytes() == (tmp_path / "seed1.json").read_bytes()


def test_no_temporary_file_stays_behind(tmp_path: Path) -> None:
    write_record(make_record(), tmp_path / "record.json")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_record_cannot_be_changed() -> None:
    record = make_record()
    with pytest.raises(ValidationError, match="frozen"):
        record.status = "failed"
    with pytest.raises(ValidationError, match="frozen"):
        record.identity.seed = 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity.seed", "0"),
        ("identity.seed", -1),
        ("identity.seed", 10**30),
        ("identity.variant", "<script>"),
        ("identity.variant", "=1+1"),
        ("identity.variant", "../../etc"),
        ("identity.protocol_id", "not hexadecimal"),
        ("identity.surprise", 1),
        ("schema_version", 3),
        ("status", "splendid"),
        ("training.final_loss", "1.0"),
        ("training.steps", 1.5),
        ("digests", None),
        ("side_files", {"../secrets": "0" * 64}),
        ("side_files", {"config.yaml": "abc"}),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_and_file(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "record.json"
    path.write_text(damaged(make_record(), field, value))
    with pytest.raises(RunError) as caught:
        read_record(path)
    message = str(caught.value)
    assert "record.json" in message
    assert "\n" not in message
    assert field in message or field == "digests"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["training.final_loss", "configuration.note", "identity.options"])
def test_a_number_that_is_not_finite_is_refused_anywhere(tmp_path: Path, number: str, field: str) -> None:
    marked = damaged(make_record(), field, {"x": ["MARK"]} if field != "training.final_loss" else "MARK")
    (tmp_path / "record.json").write_text(marked.replace('"MARK"', number))
    with pytest.raises(RunError, match=r"record\.json: not a valid record"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a":' * 50_000])
def test_a_file_that_is_no_record_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RunError) as caught:
        read_record(tmp_path / "record.json")
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_file_larger_than_a_record_may_be_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "record.json").open("wb") as handle:
        handle.truncate(2**30)
    with pytest.raises(RunError, match="larger than a record may be"):
        read_record(tmp_path / "record.json")


def test_records_are_found_by_name_at_any_depth(tmp_path: Path) -> None:
    write_record(make_record("hc", 1), tmp_path / "a" / "b" / "seed1.json")
    write_record(make_record("hc", 0), tmp_path / "c" / "record.json")
    (tmp_path / "a" / "evaluation.json").write_text("{}")
    assert [record.identity.seed for record in read_records(tmp_path)] == [1, 0]


@pytest.mark.parametrize("name", ["missing", ""])
def test_a_folder_without_records_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="records"):
        read_records(tmp_path / name)


def test_what_was_not_finite_becomes_null() -> None:
    record = make_record("hc", 2, loss=1.0, diverged=70)
    assert record.status == "diverged"
    assert record.training is not None
    assert record.training.final_loss is None
    assert record.training.validation[-1].loss is None


def test_a_diverged_run_has_no_validation_loss_even_when_an_earlier_one_was_finite() -> None:
    evidence = make_evidence("hc", 2, loss=1.0, diverged=70)
    summary = dict(evidence.training or {})
    summary["validation"] = summary["validation"][:1]
    record = assemble_record(replace(evidence, training=summary))
    assert record.training is not None
    assert record.training.validation[-1].loss == pytest.approx(1.6)
    assert record.validation_loss is None


@pytest.mark.parametrize("kept", [0, 1])
def test_a_run_without_a_finite_loss_after_its_last_step_counts_as_diverged(kept: int) -> None:
    summary = training_summary("hc", 0, 1.0, "", None)
    summary["validation"] = summary["validation"][:kept]
    record = assemble_record(replace(make_evidence("hc", 0), training=summary))
    assert (record.status, record.validation_loss) == ("diverged", None)


def test_a_complete_record_without_a_loss_after_its_last_step_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite last validation loss"):
        Record.model_validate_json(damaged(make_record(), "training.steps", 121))


def test_a_run_that_diverged_in_its_first_step_has_a_record() -> None:
    summary = training_summary("hc", 0, 1.0, "", 0)
    summary |= {"gradient_norm": {}, "step_seconds": {}, "validation": [], "probes": {}, "loss_curve": []}
    record = assemble_record(replace(make_evidence("hc", 0), training=summary, curves={}))
    assert record.status == "diverged"
    assert record.training is not None
    assert record.training.gradient_norm is None


def test_a_failed_run_needs_no_training() -> None:
    evidence = make_evidence("hc", 0)
    record = assemble_record(replace(evidence, training=None, evaluation=None, failure="out of memory"))
    assert (record.status, record.failure, record.training) == ("failed", "out of memory", None)


def test_an_unknown_field_of_a_summary_is_named() -> None:
    evidence = make_evidence("hc", 0)
    summary = {**(evidence.training or {}), "surprise": 1}
    with pytest.raises(RunError, match=r"training\.surprise"):
        assemble_record(replace(evidence, training=summary))


def test_numeric_keys_of_a_configuration_become_text() -> None:
    schedule: Any = make_record().configuration["optimizer"]
    assert schedule["schedule"]["drops"] == {"0.8": 0.3}


def test_the_loss_curve_and_the_given_curves_are_in_the_record() -> None:
    record = make_record("hc", 0)
    given = curves("hc", "", 0, 120)[GAIN_FORWARD]
    assert record.curve(GAIN_FORWARD) == given
    loss = record.curve(LOSS)
    assert loss is not None
    assert loss.steps[:2] == (5, 10)
    assert record.curve("unknown") is None


def test_thinning_keeps_the_ends_and_the_limit() -> None:
    steps = list(range(1000))
    curve = thin_curve(steps, [float(step) ** 2 for step in steps], points=100)
    assert len(curve.steps) == 100
    assert (curve.steps[0], curve.steps[-1]) == (0, 999)
    assert all(value == step**2 for step, value in zip(curve.steps, curve.values, strict=True))


def test_thinning_leaves_a_short_or_empty_curve_alone() -> None:
    assert thin_curve([3, 7], [1.0, float("inf")]).values == (1.0, None)
    assert thin_curve([], []).steps == ()


@pytest.mark.parametrize(("steps", "values"), [((1, 1), (1.0, 2.0)), ((2, 1), (1.0, 2.0)), ((1,), ())])
def test_a_curve_with_steps_out_of_order_or_of_another_length_is_refused(
    steps: tuple[int, ...], values: tuple[float, ...]
) -> None:
    curve = {"steps": list(steps), "values": list(values)}
    text = damaged(make_record(), f"mechanism.curves.{LOSS}", curve)
    with pytest.raises(ValidationError, match="steps"):
        Record.model_validate_json(text)


def test_gains_and_matrices_over_no_sublayer_are_refused() -> None:
    gains = (GAIN_FORWARD, GAIN_BACKWARD, "forward_gain", "backward_gain")
    depth: dict[str, object] = {"step": 120, "product": [[1.0]], "mixing": [[[1.0]]]}
    one = damaged(make_record(), "mechanism.depth", depth | {name: [1.0] for name in gains})
    assert Record.model_validate_json(one).mechanism
    none = damaged(make_record(), "mechanism.depth", depth | {name: [] for name in (*gains, "mixing")})
    with pytest.raises(ValidationError, match="mixing"):
        Record.model_validate_json(none)


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json_schema()

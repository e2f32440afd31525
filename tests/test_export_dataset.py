"""Records as a Hugging Face dataset: read offline by `datasets`, every number as in the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from evidence_factory import make_record, study_records, suite_records, write_all
from huggingface_hub import DatasetCard

from mhc_bench import cli
from mhc_bench.evidence import read_records
from mhc_bench.evidence.reproduction import Reproduction, reproduction_json


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two suites, one of them a study with a diverged run, and a reproduction."""
    folder = write_all([*suite_records(), *study_records()], tmp_path_factory.mktemp("records"))
    path = next(folder.glob("quick-*/hc/seed1.json"))
    told = Reproduction(
        schema_version=1,
        record=make_record("hc", 1).digest,
        verdict="identical bits",
        version="0.1.0",
        environment=(),
        differences=(),
        interval=None,
    )
    path.with_name("seed1.reproduction-1.json").write_text(reproduction_json(told))
    return folder


@pytest.fixture(scope="module")
def exported(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "dataset"
    assert cli.main(["export", str(records), str(out)]) == 0
    return out


def load(folder: Path, name: str, cache: Path) -> list[dict[str, Any]]:
    table = datasets.load_dataset(str(folder), name, cache_dir=str(cache))["train"]
    rows: list[dict[str, Any]] = table.to_list()
    return rows


def test_every_run_is_a_row_with_what_its_record_says(exported: Path, records: Path, tmp_path: Path) -> None:
    rows = {row["record"]: row for row in load(exported, "runs", tmp_path)}
    known = read_records(records)
    assert rows.keys() == {record.digest for record in known}
    for record in known:
        row = rows[record.digest]
        assert (row["variant"], row["seed"]) == (record.identity.variant, record.identity.seed)
        assert (row["status"], row["validation_loss"]) == (record.status, record.validation_loss)
    assert {row["status"] for row in rows.values()} == {"complete", "diverged"}
    assert sum(row["reproductions"] for row in rows.values()) == 1


def test_scores_and_curves_are_those_of_the_records(exported: Path, records: Path, tmp_path: Path) -> None:
    first = read_records(records)[0]
    assert first.evaluation is not None and first.mechanism is not None
    scores = [row for row in load(exported, "scores", tmp_path) if row["record"] == first.digest]
    assert {row["task"]: row["value"] for row in scores} == {
        name: task.value for name, task in first.evaluation.tasks.items()
    }
    curves = [row for row in load(exported, "curves", tmp_path) if row["record"] == first.digest]
    for name, curve in first.mechanism.curves.items():
        points = [(row["step"], row["value"]) for row in curves if row["curve"] == name]
        assert points == list(zip(curve.steps, curve.values, strict=True))


def test_the_table_has_the_differences_of_both_suites(exported: Path, tmp_path: Path) -> None:
    rows = load(exported, "table", tmp_path)
    assert {row["suite"] for row in rows} == {"quick", "study"}
    (loss,) = [
        row
        for row in rows
        if (row["suite"], row["variant"], row["metric"]) == ("quick", "hc", "validation_loss")
    ]
    assert loss["difference"] == pytest.approx(-0.074, abs=1e-9)


def test_the_card_names_its_tables_and_is_whole(exported: Path) -> None:
    card = DatasetCard.load(exported / "README.md")
    names = [each["config_name"] for each in card.data.to_dict()["configs"]]
    assert names == ["runs", "scores", "curves", "table"]
    assert all((exported / f"{name}.parquet").is_file() for name in names)
    assert "27 runs of these suites: quick, study" in card.text
    assert sorted(path.name for path in exported.parent.iterdir()) == ["dataset"]


def test_the_same_records_give_the_same_bytes(exported: Path, records: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(records), str(tmp_path / "again")]) == 0
    for path in exported.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_what_is_neither_a_run_nor_records_is_refused(
    tmp_path: Path, records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "expected a run folder (config.yaml) or a folder with records" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("keep")
    assert cli.main(["export", str(records), str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

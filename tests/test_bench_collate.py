"""The bench of collation: its records are valid and of a real one's size, and its report adds up."""

from __future__ import annotations

import json

import pytest

from mhc_bench import cli
from mhc_bench.bench.collation import CollationGrid, synthetic_run
from mhc_bench.evidence import assemble_record
from mhc_bench.evidence.record import canonical_json


def test_a_report_has_every_phase_and_its_rate_is_that_of_the_way_to_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["bench", "collate", "protocols=2", "variants=2", "seeds=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    seconds = {phase["name"]: phase["seconds"] for phase in found["phases"]}
    assert list(seconds) == ["write", "read", "collate", "tables", "page"]
    assert found["records"] == 8
    assert found["seconds"] == pytest.approx(seconds["read"] + seconds["collate"] + seconds["tables"])
    assert found["records_per_second"] == pytest.approx(8 / found["seconds"])
    assert found["bytes"] > 8 * 10_000


def test_a_synthetic_record_is_about_as_large_as_a_published_one() -> None:
    record = assemble_record(synthetic_run(0, 1, 2, CollationGrid()))
    assert 12_000 < len(canonical_json(record)) < 30_000


def test_the_seconds_stand_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "collate", "protocols=1", "variants=2", "seeds=1"]) == 0
    assert "2 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seeds=0"], "bench collate seeds=0: expected at least 1"),
        (["--figure", "a.svg"], "bench collate draws no figure"),
        (["quick"], "bench collate takes no suite"),
        (["seedz=1"], "seedz"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "collate", *words]) == 2
    assert said in capsys.readouterr().err

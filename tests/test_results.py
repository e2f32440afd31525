"""The committed results: every page, data file and README table is what the committed records give."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from mhc_bench import cli
from mhc_bench.config import load_suite, run_configs
from mhc_bench.evidence import read_records
from mhc_bench.evidence.store import record_paths

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "results" / "records"
PUBLISHED = ["quick", "quick-lr", "stress", "field"]
DRAWN = {".png", ".svg", ".html"}


def published_folders(suite: str) -> list[Path]:
    """The folders of a suite's protocols as it is configured now."""
    return [RECORDS / f"{suite}-{run.protocol_id}" for run in run_configs(load_suite(suite))]


@pytest.mark.parametrize("suite", PUBLISHED)
def test_every_run_of_a_published_suite_has_its_record(suite: str) -> None:
    for folder, run in zip(published_folders(suite), run_configs(load_suite(suite)), strict=True):
        assert (folder / run.variant_name / f"seed{run.seed}.json").is_file()


@pytest.mark.parametrize("suite", PUBLISHED)
def test_every_byte_of_tables_page_and_figures_is_what_the_records_give(suite: str, tmp_path: Path) -> None:
    # the page links to its records, so they must lie beside it as they do in the repository
    shutil.copytree(RECORDS, tmp_path / "records")
    out = tmp_path / suite
    assert cli.main(["leaderboard", str(tmp_path / "records"), "--suite", suite, "--out", str(out)]) == 0
    committed = {path.name: path for path in (ROOT / "results" / suite).iterdir()}
    assert {path.name for path in out.iterdir()} == set(committed)
    for path in out.iterdir():
        if path.suffix not in DRAWN or drawn_with_the_pinned_versions():
            assert path.read_bytes() == committed[path.name].read_bytes(), path.name


def drawn_with_the_pinned_versions() -> bool:
    """Other versions of the plotting library may place a tick elsewhere."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return all(f"{name}=={version(name)}" in pins for name in ("matplotlib", "numpy"))


@pytest.mark.parametrize("suite", PUBLISHED)
def test_every_link_of_a_published_page_leads_to_a_file(suite: str) -> None:
    place = ROOT / "results" / suite
    text = (place / "leaderboard.html").read_text(encoding="utf-8")
    links = {link for link in re.findall(r'href="([^"#]+)"', text) if not link.startswith("data:")}
    records = {path for folder in published_folders(suite) for path in record_paths(folder)}
    assert len(links) == len(records)
    assert all((place / link).is_file() for link in links)


def test_the_readme_shows_what_the_records_give(tmp_path: Path) -> None:
    for suite in ("quick", "stress"):
        from mhc_bench.evidence import load_board, readme_fragment

        board = load_board(sorted(set(published_folders(suite))))
        fragment = readme_fragment(board, f"results/{suite}").strip()
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert f"<!-- leaderboard:{suite} -->\n\n{fragment}\n\n<!-- /leaderboard:{suite} -->" in text


def test_published_records_come_from_committed_code_and_name_no_folder_of_a_machine() -> None:
    for record in read_records(RECORDS):
        assert record.provenance.commit
        assert record.provenance.dirty is False
    for path in RECORDS.rglob("seed*.json"):
        text = path.read_text(encoding="utf-8")
        assert "/root" not in text and "/home/" not in text and "/tmp/" not in text


def test_the_published_records_stand_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(RECORDS)]) == 0
    out = capsys.readouterr().out
    records = [path for path in RECORDS.rglob("seed*.json") if ".reproduction-" not in path.name]
    assert f"{len(records)} records: no problem found" in out
    assert "parameters" not in out and "protocol id" not in out


def test_the_learning_rate_of_quick_is_the_one_that_its_rule_gives() -> None:
    losses: dict[float, list[float]] = {}
    for folder in set(published_folders("quick-lr")):
        for record in read_records(folder):
            assert record.validation_loss is not None
            assert record.identity.variant == "baseline"
            rate = record.configuration["optimizer"]["learning_rate"]  # type: ignore[index,call-overload]
            losses.setdefault(rate, []).append(record.validation_loss)
    assert sorted(losses) == [0.002, 0.004, 0.008]
    best = min(losses, key=lambda rate: sum(losses[rate]) / len(losses[rate]))
    assert load_suite("quick").optimizer.learning_rate == best
    assert not set(load_suite("quick").seeds) & set(load_suite("quick-lr").seeds)

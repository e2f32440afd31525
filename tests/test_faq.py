"""The tables of the questions page say what the published records say, row by row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhc_bench.config import load_suite, run_configs
from mhc_bench.evidence import Record, load_board, read_records
from mhc_bench.evidence import quantities as q
from mhc_bench.evidence.collate import Arm, Board, Row
from mhc_bench.evidence.statistics import holm, paired_difference
from mhc_bench.evidence.tables import comparison, study
from mhc_bench.evidence.text import value_range

ROOT = Path(__file__).parent.parent
FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
REPETITIONS = "repetitions/quick-cc4f49c1b1"
H_RES = (
    *("baseline", "hc", "hc-static", "hc-res", "hc-pre-res", "hc-pre-post", "hc-pre-post-res"),
    *("mhc", "mhc-static", "mhc-unconstrained", "mhc-identity", "mhc-lite", "kromhc"),
    *("mhc-orthogonal", "mhc-spectral"),
)
"""The variants of `field` that differ in how H_res is made."""
PAIRS = (
    *(("mhc", "mhc-identity"), ("mhc", "mhc-unconstrained")),
    *(("mhc-unconstrained", "mhc-identity"), ("hc", "hc-pre-post")),
)
SPIKES = next(one for one in q.STABILITY if one.key == "spikes")


def published(suite: str) -> Board:
    ids = {run.protocol_id for run in run_configs(load_suite(suite))}
    return load_board([ROOT / "results" / "records" / f"{suite}-{each}" for each in sorted(ids)])


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def of_stress() -> Iterator[str]:
    _, losses, gains, _ = study(published("stress"))
    yield from (line(*row) for row in gains.rows)
    yield from (line(*row) for row in losses.rows if row[0] != "baseline")


def losses(suite: str) -> dict[str, str]:
    """Variant -> its row of losses."""
    (arm,) = published(suite).arms
    rows = {}
    for row in comparison("", arm, [q.VALIDATION_LOSS]).rows:
        _, variant, mean, _, difference, interval, _, verdict = row
        rows[variant] = line(variant, mean, difference, interval, verdict or "-")
    return rows


def of_losses() -> Iterator[str]:
    yield from losses("quick").values()


def of_h_res() -> Iterator[str]:
    yield from map(losses("field").__getitem__, H_RES)


def of_spikes() -> Iterator[str]:
    arms = [*published("quick").arms, *published("stress").arms]

    def spikes(arm: Arm, variant: str) -> str:
        row = next(row for row in arm.rows if row.variant == variant)
        return value_range(arm.cell(row, SPIKES).values.values(), len(row.runs))

    yield from (line(name, *(spikes(arm, name) for arm in arms)) for name in ("baseline", "hc", "mhc"))


def of_mechanism() -> Iterator[str]:
    rows = {row.variant: row for row in published("quick").arms[0].rows}

    def over_seeds(name: str, row: Row, of: Callable[[Record], float | None]) -> str:
        values = [of(row.runs[seed]) for seed in sorted(row.runs)]
        return line(name, *(f"{value:.3f}" for value in values if value is not None))

    def final(probe: str) -> Callable[[Record], float | None]:
        return lambda record: found.final if (found := record.probe(probe)) else None

    def least(record: Record) -> float | None:
        found = record.probe("identity_distance")
        return found.min if found else None

    yield over_seeds("from the identity", rows["mhc"], final("identity_distance"))
    yield over_seeds("from the uniform matrix", rows["mhc"], final("uniform_distance"))
    yield over_seeds("smallest distance from the identity in training", rows["mhc"], least)
    for variant in ("hc", "mhc"):
        yield over_seeds(variant, rows[variant], final("stream_effective_rank"))


def of_pairs() -> Iterator[str]:
    """Differences within `field` that are not to the baseline."""
    by_variant = {row.variant: row for row in published("field").arms[0].rows}
    for first, second in PAIRS:
        found = paired_difference(
            *(losses_by_seed(by_variant[name]) for name in (first, second)), higher_is_better=False
        )
        interval = f"({found.low:+.4f}, {found.high:+.4f})"
        yield line(f"{first}, {second}", f"{found.mean:+.4f}", interval)


def losses_by_seed(row: Row) -> dict[int, float]:
    return {seed: loss for seed, run in row.runs.items() if (loss := run.validation_loss) is not None}


EXPECTED = {
    "stress": of_stress,
    "losses": of_losses,
    "H_res": of_h_res,
    "pairs": of_pairs,
    "spikes": of_spikes,
    "mechanism": of_mechanism,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_row_of_a_table_is_what_the_records_give(name: str) -> None:
    rows = list(EXPECTED[name]())
    assert len(rows) >= 3
    assert not [row for row in rows if row not in FAQ]


def test_every_row_of_the_field_is_in_the_results() -> None:
    rows = losses("field")
    assert set(rows) == set(load_suite("field").variants)
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert not [row for row in rows.values() if row not in text]
    # what the changelog and both pages say of them
    assert all("| not shown (" in row for name, row in rows.items() if name != "baseline")


def test_what_the_field_shows_over_the_tasks_is_in_the_results_and_none_stands_the_correction() -> None:
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "results" / "field" / "leaderboard.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in page.splitlines()]
    shown = [row for row in cells if " 8 tasks" in row[0] and row[-1] in ("better", "worse")]
    assert shown and not [row for row in shown if line(*row[:2], *row[4:6], row[-1]) not in text]
    smallest = []
    with (ROOT / "results" / "field" / "leaderboard.csv").open(encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["p"]]
    for metric in ("validation_loss", "gold_loglikelihood", "score", "score_centred"):
        p_values = {row["variant"]: float(row["p"]) for row in rows if row["metric"] == metric}
        assert len(p_values) == 22
        smallest.append((min(p_values.values()), min(holm(p_values).values())))
    first, corrected = min(smallest)
    assert f"{first:.3f}, becomes {corrected:.2f}" in text and all(each > 0.05 for _, each in smallest)


def test_the_baselines_of_the_field_are_those_of_the_repetitions_to_the_bit() -> None:
    folders = [ROOT / "results" / place / "baseline" for place in ("records/field-cc4f49c1b1", REPETITIONS)]
    weights = [
        {record.identity.seed: record.digests and record.digests.weights for record in read_records(folder)}
        for folder in folders
    ]
    assert weights[0] == weights[1] and len(weights[0]) == 3 and None not in weights[0].values()

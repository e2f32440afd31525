"""A/A runs: the baseline again from a start moved by a hair; paired with it, and never a row of a table."""

from __future__ import annotations

from pathlib import Path

import model_factory as make
import pytest
import torch
from evidence_factory import SEEDS, edited, make_record, sha, suite_records
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import load_suite, run_configs
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence import Record
from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.leaderboard import Contents, page
from mhc_bench.evidence.quantities import VALIDATION_LOSS
from mhc_bench.evidence.uncertainty import floor
from mhc_bench.model import perturb, weight_digest
from mhc_bench.training import fit

MOVES = (0.004, -0.010, 0.003)
"""What the A/A runs of three seeds end above the baseline."""


def again(seed: int, move: float, **identity: object) -> Record:
    """The record of an A/A run that ends `move` above the baseline."""
    once = make_record("baseline", seed)
    assert once.validation_loss is not None
    record = make_record("baseline", seed, loss=once.validation_loss + move)
    return edited(
        record,
        identity={"variant": "baseline-aa", "perturbation": 1e-6, **identity},
        digests={"start": sha("moved", seed), "weights": sha("again", seed)},
    )


def with_repeats() -> list[Record]:
    return [*suite_records(), *(again(seed, move) for seed, move in zip(SEEDS, MOVES, strict=True))]


def test_every_entry_moves_by_the_stated_share_in_a_direction_of_its_own() -> None:
    model, before = make.grafted("llama", "baseline"), make.grafted("llama", "baseline")
    perturb(model, 0, 1e-3)
    for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        ratio = (new / old)[old != 0].double()
        assert torch.allclose((ratio - 1).abs(), torch.tensor(1e-3, dtype=torch.double), rtol=1e-3), name
        up = (ratio > 1).double().mean()
        assert 0.3 < up < 0.7, name


def test_the_perturbation_follows_from_seed_and_name_alone() -> None:
    def moved(seed: int, relative: float = 1e-6) -> str:
        torch.manual_seed(seed + 7)
        model = make.grafted("llama", "baseline", 3)
        perturb(model, seed, relative)
        return weight_digest(model)

    assert moved(3) == moved(3)
    assert moved(3) != moved(4)
    assert moved(3) != moved(3, 1e-5)


def test_an_a_a_run_shares_start_and_tokens_with_its_baseline_and_ends_a_little_elsewhere(
    tmp_path: Path,
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    once = fit(tiny_run(corpus), tmp_path / "once")
    config = tiny_run(corpus, variant__perturbation=1e-6, variant_name="baseline-aa")
    twice = fit(config, tmp_path / "again")
    assert config.protocol_id == tiny_run(corpus).protocol_id
    assert twice.shared_weight_digest == once.shared_weight_digest
    assert twice.token_stream_digest == once.token_stream_digest
    assert once.start_digest is None
    assert twice.start_digest not in (None, once.shared_weight_digest)
    assert twice.weight_digest != once.weight_digest
    gap = abs(twice.validation[-1]["loss"] - once.validation[-1]["loss"])
    assert 0 < gap < 1e-3


def test_a_suite_gets_its_a_a_runs_under_the_same_protocol_by_naming_them() -> None:
    runs = run_configs(load_suite("quick", ["variants=[baseline,baseline-aa]"]))
    assert {run.protocol_id for run in runs} == {run.protocol_id for run in run_configs(load_suite("quick"))}
    moved = {run.variant_name: run.variant.perturbation for run in runs}
    assert moved == {"baseline": 0, "baseline-aa": 1e-6}


@pytest.mark.parametrize(
    "variants",
    [
        "{moved: {base: mhc, perturbation: 1.0e-6}}",
        "{baseline: {base: baseline, perturbation: 1.0e-6}}",
        "{again: {base: baseline, perturbation: 0.1}}",
        "{again: {base: baseline, perturbation: -1.0e-6}}",
    ],
)
def test_only_the_baseline_is_repeated_under_another_name_and_by_a_hair(
    variants: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: smoke\nvariants: {variants}\n")
    with pytest.raises(UsageError, match=r"variants\..*perturbation is .*: expected 0"):
        load_suite(str(path))


def test_a_a_runs_are_no_row_and_no_seeds_of_the_baseline() -> None:
    (plain,), (arm,) = collate(suite_records()).arms, collate(with_repeats()).arms
    assert [row.variant for row in arm.rows] == ["baseline", "hc", "mhc"]
    for before, after in zip(plain.rows, arm.rows, strict=True):
        assert plain.cell(before, VALIDATION_LOSS) == arm.cell(after, VALIDATION_LOSS)
    assert [row.variant for row in arm.repeats] == ["baseline-aa"]
    assert len(arm.records) == 12


def test_the_floor_is_the_spread_and_the_largest_of_the_differences_to_the_baseline() -> None:
    (arm,) = collate(with_repeats()).arms
    found = arm.floor(arm.repeats[0], VALIDATION_LOSS)
    assert found is not None
    assert found.differences.n == 3
    assert found.differences.mean == pytest.approx(-0.001)
    # deviations .005, -.009, .004
    assert found.differences.sd == pytest.approx(((0.005**2 + 0.009**2 + 0.004**2) / 2) ** 0.5)
    assert found.largest == pytest.approx(0.010)


def test_the_page_shows_the_floor_apart_from_the_spread_over_seeds() -> None:
    board = collate(with_repeats())
    table = floor(board.arms[0])
    assert table is not None
    # LOSSES of the baseline: 1.108, 1.143, 1.135
    assert table.rows[0] == ("Validation loss (nats/token)", "3", "-0.0010", "0.0078", "0.0100", "0.0183")
    assert "moved by 1e-06 of its size" in table.caption
    text = page(Contents(board))
    assert "## A/A floor" in text and "| baseline-aa | 0 | complete |" in text
    assert "no A/A runs" not in text


def test_a_a_runs_that_were_started_and_have_records_are_no_gap() -> None:
    both = {"variants": ["baseline", "baseline-aa", "hc"], "seeds": [0, 1, 2]}
    told = [edited(record, started=both) for record in with_repeats()]
    assert not any(run[0].startswith("baseline") for run in collate(told).arms[0].missing)
    (arm,) = collate([record for record in told if record.identity.variant != "baseline-aa"]).arms
    assert [run for run in arm.missing if run[0] == "baseline-aa"] == [("baseline-aa", k) for k in range(3)]


def test_a_page_without_a_a_runs_says_how_to_get_them() -> None:
    text = page(Contents(collate(suite_records())))
    assert "A/A floor" not in text
    assert "**Gap**: no A/A runs: the same command with variants=\\[baseline,baseline-aa\\] adds them" in text


def test_other_hardware_of_an_a_a_run_leaves_the_rows_costs_comparable() -> None:
    elsewhere = edited(again(0, 0.01), identity={"cost_id": "ffffffffff"})
    (arm,) = collate([*suite_records(), elsewhere]).arms
    assert len(arm.cost_ids) == 1


def test_an_a_a_run_of_another_start_is_no_pair() -> None:
    wrong = edited(again(0, 0.0), digests={"shared_weights": sha("elsewhere")})
    with pytest.raises(RunError, match="shared-weight digest differs"):
        collate([*suite_records(), wrong])


def test_a_moved_run_among_the_seeds_of_the_baseline_is_refused() -> None:
    hidden = again(0, 0.0, variant="baseline")
    _, *others = suite_records()  # without the baseline's seed 0
    with pytest.raises(RunError, match="start moved by 1e-06"):
        collate([*others, hidden])

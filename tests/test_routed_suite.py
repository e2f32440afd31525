"""A routed model on two ranks through `mhc-bench run`: trained, evaluated, recorded and ranked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from forked_suite import ranks_by_fork, workers_of

from mhc_bench import cli
from mhc_bench.evidence import Record, read_records
from mhc_bench.suite import runner

VARIANTS = ("baseline", "hc", "mhc")
TASKS = ("world_piqa", "world_gsm")
STEPS = 4
TINY = [
    f"training.steps={STEPS}",
    "training.validate_every=2",
    "training.probe_every=2",
    "evaluation.limit=3",
    f"evaluation.tasks=[{','.join(TASKS)}]",
    "logging.loggers=[]",
]

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite, run to its end, with a copy of its records beside the runs.

    The first variant's ranks are started as a user's are; those of the others are forks of this process.
    """
    root = tmp_path_factory.mktemp("routed")
    words = ["run", "smoke-moe", *TINY, "--runs", str(root / "runs"), "--records", str(root / "records")]
    assert cli.main([*words, f"variants=[{VARIANTS[0]}]"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "subprocess", workers_of(ranks_by_fork))
        assert cli.main(words) == 0
    return root


@pytest.fixture(scope="module")
def records(root: Path) -> dict[str, Record]:
    return {record.identity.variant: record for record in read_records(root / "records")}


def run_folders(root: Path) -> dict[str, Path]:
    return {name: path for name in VARIANTS for path in (root / "runs").glob(f"smoke-moe-*/{name}/seed0")}


def test_every_variant_is_trained_on_two_ranks_and_evaluated(records: dict[str, Record]) -> None:
    assert set(records) == set(VARIANTS)
    for record in records.values():
        assert record.status == "complete"
        assert record.training is not None and record.training.steps == STEPS
        assert record.provenance.hardware.processes == 2
        assert record.evaluation is not None and set(record.evaluation.tasks) == set(TASKS)
        assert all(task.n == 3 for task in record.evaluation.tasks.values())
        assert record.configuration["model"]["family"] == "deepseek_v3"
        assert record.configuration["hardware"]["sharding"] == "fsdp"


def test_the_runs_are_pairs(records: dict[str, Record]) -> None:
    digests = [record.digests for record in records.values()]
    assert len({each.shared_weights for each in digests if each}) == 1
    assert len({each.token_stream for each in digests if each}) == 1
    assert len({each.weights for each in digests if each}) == len(VARIANTS)
    assert len({record.identity.protocol_id for record in records.values()}) == 1
    asked = {
        tuple(task.request_hash for task in record.evaluation.tasks.values())
        for record in records.values()
        if record.evaluation
    }
    assert len(asked) == 1


def test_the_load_of_the_experts_is_written_down_and_balanced(root: Path) -> None:
    assert set(run_folders(root)) == set(VARIANTS)
    for folder in run_folders(root).values():
        with (folder / "experts.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert [(row["step"], row["router"]) for row in rows] == [
            ("2", "0"),
            ("2", "1"),
            ("4", "0"),
            ("4", "1"),
        ]
        for row in rows:
            assert sum(float(row[f"load_{expert}"]) for expert in range(4)) == pytest.approx(4, rel=1e-6)
        with (folder / "metrics.csv").open() as handle:
            last = [row for row in csv.DictReader(handle) if row["expert_load_max"]][-1]
        assert float(last["expert_load_max"]) >= float(last["expert_load_max_average"]) >= 1
        assert float(last["expert_load_min"]) <= 1 and float(last["expert_bias_spread"]) > 0
        training = json.loads((folder / "training.json").read_text())
        assert training["probes"]["expert_load_max"]["final"] == pytest.approx(float(last["expert_load_max"]))


def test_the_leaderboard_has_a_row_for_every_variant(root: Path) -> None:
    (page,) = (root / "runs").glob("smoke-moe-*/leaderboard")
    text = (page / "leaderboard.md").read_text(encoding="utf-8")
    for word in (*TASKS, "one seed, no interval", "processes: 2"):
        assert word in text
    with (page / "leaderboard.csv").open() as handle:
        assert {row["variant"] for row in csv.DictReader(handle)} == set(VARIANTS)


def test_nothing_is_left_of_the_ranks(root: Path) -> None:
    names = {path.name for path in (root / "runs").rglob("*")}
    assert not {name for name in names if name.endswith(".tmp")}
    assert not names & {"progress.json", "failure.txt"}

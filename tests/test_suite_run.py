"""`mhc-bench run`: all stages once, nothing twice, past a failure, refusing what is not its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tiny_runs import tiny_run

from mhc_bench import cli
from mhc_bench.config import RunConfig, save_run_config
from mhc_bench.evidence import read_record, read_records
from mhc_bench.suite import commands, cost
from mhc_bench.suite.cost import cost_file, measure_missing_costs, read_step_time
from mhc_bench.suite.locks import locked, unless_taken
from mhc_bench.suite.runner import make_ready, visible_devices

TINY = ["training.steps=4", "training.validate_every=2", "training.probe_every=2", "evaluation.limit=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a tiny suite, run to its end with a copy of its records beside it."""
    root = tmp_path_factory.mktemp("suite")
    words = ["run", "smoke", *TINY, "--runs", str(root / "runs"), "--records", str(root / "records")]
    assert cli.main(words) == 0
    return root


def test_every_variant_has_a_record_with_all_stages(finished: Path) -> None:
    records = read_records(finished / "records")
    assert {record.identity.variant for record in records} == {"baseline", "hc", "mhc"}
    for record in records:
        assert record.status == "complete"
        assert record.training is not None and record.training.steps == 4
        assert record.evaluation is not None and len(record.evaluation.tasks) == 8
        assert record.cost.step_time is not None and record.cost.step_time.ratio_to_baseline > 0
        assert record.curve("composite_forward_gain") is not None
        assert record.provenance.packages["torch"]


def test_records_prove_that_the_runs_are_pairs(finished: Path) -> None:
    digests = [record.digests for record in read_records(finished / "records")]
    assert len({each.shared_weights for each in digests if each}) == 1
    assert len({each.token_stream for each in digests if each}) == 1
    assert len({each.weights for each in digests if each}) == 3
    assert len({record.identity.protocol_id for record in read_records(finished / "records")}) == 1


def test_published_records_stand_every_check_with_the_items_beside_them(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "--json", str(finished / "records")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["records"] == 3
    assert {note["check"] for note in report["notes"]} <= {"environment"}
    assert len(list((finished / "records").rglob("seed0.items.json.gz"))) == 3


def test_the_leaderboard_names_every_variant_and_family(finished: Path) -> None:
    (page,) = (finished / "runs").glob("smoke-*/leaderboard/leaderboard.md")
    text = page.read_text(encoding="utf-8")
    for word in ("baseline", "hc", "mhc", "world_trivia", "world_bbh", "one seed, no interval"):
        assert word in text
    assert {path.name for path in page.parent.iterdir()} >= {
        "leaderboard.csv",
        "leaderboard.json",
        "loss.png",
    }


def test_records_hold_no_path_of_the_machine(finished: Path) -> None:
    for path in (finished / "records").rglob("seed*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(finished) not in text
        assert str(Path.home()) not in text


def test_running_again_redoes_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "runs").rglob("record.json")}
    assert cli.main(["run", "smoke", *TINY, "--runs", str(finished / "runs")]) == 0
    assert "0 of 3 runs are missing" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (finished / "runs").rglob("record.json")}


def test_nothing_temporary_is_left(finished: Path) -> None:
    names = {path.name for path in (finished / "runs").rglob("*")}
    assert not {name for name in names if name.endswith(".tmp")}
    assert not names & {"progress.json", "failure.txt"}


def test_evaluating_a_finished_run_with_other_settings_leaves_its_record_alone(finished: Path) -> None:
    (folder,) = (finished / "runs").glob("smoke-*/mhc/seed0")
    before = (folder / "record.json").read_bytes()
    assert cli.main(["eval", str(folder), "evaluation.tasks=[world_mmlu]", "evaluation.limit=3"]) == 0
    (report,) = folder.glob("evaluations/*/evaluation.json")
    assert list(json.loads(report.read_text(encoding="utf-8"))["summary"]["tasks"]) == ["world_mmlu"]
    assert (folder / "record.json").read_bytes() == before


@pytest.mark.long
def test_a_run_that_breaks_stops_no_other_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(Path(__file__).parent)
    words = ["run", "smoke", *TINY, "variants=[breaking_variant:Breaking,hc]", "evaluation.tasks=[]"]
    assert cli.main([*words, "--runs", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "this connection always breaks" in out
    (record,) = tmp_path.rglob("record.json")
    assert read_record(record).identity.variant == "hc"
    (attempt,) = tmp_path.rglob("record-1.json")
    assert read_record(attempt).failure == "RuntimeError: this connection always breaks"
    (page,) = tmp_path.rglob("leaderboard.md")
    assert "is failed: RuntimeError: this connection always breaks" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "devices", "count", "expected"),
    [(0, 1, 1, "0"), (2, 1, 1, "0"), (1, 2, 8, "2,3"), (4, 2, 8, "0,1"), (3, 1, 2, "1")],
)
def test_runs_get_gpus_of_their_own_and_share_when_there_are_too_few(
    place: int, devices: int, count: int, expected: str
) -> None:
    assert visible_devices(place, devices, count) == expected


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "smoke", "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    assert "3 of 3 runs are missing" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_publishing_over_another_record_is_refused(finished: Path, tmp_path: Path) -> None:
    (source,) = (finished / "records").glob("smoke-*/hc/seed0.json")
    target = tmp_path / source.relative_to(finished / "records")
    target.parent.mkdir(parents=True)
    target.write_text("{}")
    words = ["run", "smoke", *TINY, "--runs", str(finished / "runs"), "--records", str(tmp_path)]
    assert cli.main(words) == 1
    assert target.read_text() == "{}"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The variants of each measurement of step times; none is made."""
    found: list[list[str]] = []

    def measure(runs: list[RunConfig]) -> dict[str, dict[str, int]]:
        found.append([run.variant_name for run in runs])
        return {run.variant_name: {"n": len(found)} for run in runs}

    monkeypatch.setattr(cost, "_measure", measure)
    return found


def measure_costs(root: Path, *variants: str) -> dict[str, object]:
    """By variant, which measurement its step time comes from after those that were missing were made."""
    runs = [tiny_run(Path("corpus"), variant) for variant in variants]
    measure_missing_costs(runs, root, Console(quiet=True))
    folder = cost_file(root, runs[0]).parent
    return {run.variant_name: (read_step_time(folder, run) or {}).get("n") for run in runs}


def test_a_variant_added_later_gets_its_step_cost(tmp_path: Path, measured: list[list[str]]) -> None:
    assert measure_costs(tmp_path, "baseline", "mhc") == {"baseline": 1, "mhc": 1}
    assert measure_costs(tmp_path, "baseline", "mhc") == {"baseline": 1, "mhc": 1}
    assert measure_costs(tmp_path, "baseline", "hc") == {"baseline": 2, "hc": 2}
    assert measure_costs(tmp_path, "mhc") == {"mhc": 1}
    assert measured == [["baseline", "mhc"], ["baseline", "hc"]]


def test_variants_without_a_baseline_leave_its_step_cost_to_be_measured(
    tmp_path: Path, measured: list[list[str]]
) -> None:
    assert measure_costs(tmp_path, "hc") == {"hc": None}
    assert not list(tmp_path.rglob("cost-*.json"))
    assert measure_costs(tmp_path, "baseline", "hc") == {"baseline": 1, "hc": 1}


def test_the_variants_of_every_arm_get_the_step_costs_of_their_shape(
    tmp_path: Path, measured: list[list[str]]
) -> None:
    arms = [
        tiny_run(Path("corpus"), variant, optimizer__learning_rate=rate)
        for rate in (1e-2, 1e-3)
        for variant in ("baseline", "hc")
    ]
    measure_missing_costs(arms[:2], tmp_path, Console(quiet=True))
    measure_missing_costs(arms, tmp_path, Console(quiet=True))
    assert measured == [["baseline", "hc"]] * 2
    assert [read_step_time(cost_file(tmp_path, run).parent, run) for run in arms] == [{"n": 2}] * 4


def alone(folder: Path, done: list[str], name: str) -> Callable[..., None]:
    """For a function of `commands`: notes in `done` whether another process could begin in `folder`."""

    def act(*_: object, **__: object) -> None:
        with unless_taken(folder) as free:
            done.append(f"{name} beside others" if free else name)

    return act


@pytest.mark.parametrize("overrides", [[], ["evaluation.limit=3"]])
def test_evaluating_keeps_other_processes_out_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    save_run_config(tiny_run(Path("corpus"), evaluation__tasks=["mhc_world"]), tmp_path)
    (tmp_path / "training.json").write_text('{"status": "complete"}')
    done: list[str] = []
    monkeypatch.setattr(commands, "evaluate_run", alone(tmp_path, done, "evaluate"))
    monkeypatch.setattr(commands, "complete_run", lambda *_: None)
    monkeypatch.setattr(commands, "_print_scores", lambda *_: None)
    assert commands.evaluate(tmp_path, overrides) == 0
    assert done == ["evaluate"]


def test_training_one_run_keeps_other_processes_out_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY, "variant=mhc", "seed=0"]
    _, run = commands.single_run("smoke", words)
    folder, done = commands.run_folder(tmp_path, run), list[str]()
    parts = ("save_run_config", "write_origin", "put_back_if_damaged", "train_run", "record_run")
    for name in parts:
        monkeypatch.setattr(commands, name, alone(folder, done, name))
    assert commands.train("smoke", words, tmp_path) == 0
    assert done == list(parts)


def test_training_a_finished_run_again_leaves_the_files_of_its_record_alone(finished: Path) -> None:
    (folder,) = (finished / "runs").glob("smoke-*/mhc/seed0")
    before = {name: (folder / name).read_bytes() for name in ("config.yaml", "origin.json", "record.json")}
    words = [*TINY, "variant=mhc", "seed=0", "hardware.workers=0", "hardware.rows_per_device=1"]
    assert commands.train("smoke", words, finished / "runs") == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_run_that_another_process_is_just_beginning_with_is_ready_when_it_has_its_configuration(
    tmp_path: Path,
) -> None:
    run, began, ended = tiny_run(Path("corpus")), threading.Event(), threading.Event()

    def begin() -> None:
        with locked(tmp_path):
            began.set()
            ended.wait(10)

    other = threading.Thread(target=begin)
    other.start()
    assert began.wait(10)
    threading.Timer(0.3, ended.set).start()
    make_ready(run, tmp_path)
    assert ended.is_set() and (tmp_path / "config.yaml").is_file()
    other.join()


def test_a_run_that_a_worker_has_in_hand_is_left_alone(tmp_path: Path) -> None:
    save_run_config(tiny_run(Path("corpus")), tmp_path)
    (tmp_path / "failure.txt").write_text("of before")
    with locked(tmp_path):
        make_ready(tiny_run(Path("corpus")), tmp_path)
    assert (tmp_path / "failure.txt").exists()
    make_ready(tiny_run(Path("corpus")), tmp_path)
    assert not (tmp_path / "failure.txt").exists()

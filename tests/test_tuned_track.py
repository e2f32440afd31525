"""The tuned track end to end: trials, choice, runs, records, tables, and what `verify` says of tampering."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tampering import Content, each, put
from tiny_runs import BACKBONE, write_corpus

from mhc_bench import cli
from mhc_bench.config import (
    RunConfig,
    TunedConfig,
    check_same_run,
    load_suite,
    protocol_id,
    run_configs,
    run_folder,
    search_suite,
)
from mhc_bench.errors import UsageError
from mhc_bench.evidence import Record, leaderboard, read_record, read_records
from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.verify import Report, Tools, verify
from mhc_bench.suite import commands
from mhc_bench.suite import plan as planning
from mhc_bench.suite.preflight import count
from mhc_bench.suite.runner import make_ready
from mhc_bench.suite.state import RunState
from mhc_bench.suite.verify import identify
from mhc_bench.suite.worker import work
from mhc_bench.training import fit

SUITE = """
hardware: cpu
model: {{family: llama, backbone: {backbone}, initialisation: {{rule: fan_in, scale: 0.5}}}}
data:
  {{kind: text, path: {corpus}, validation_tokens: 128, validation_fraction: 0.3, tokenizer: {{kind: bytes}}}}
training: {{sequence_length: 16, batch_tokens: 64, steps: 3, validate_every: 3, probe_every: 3}}
optimizer: {{base: adamw, learning_rate: 1.0e-3}}
variants: [baseline, hc-static]
seeds: [0]
search: {{learning_rates: [1.0e-3, 1.0e-2, 1.0e+6], seeds: [7]}}
logging: {{every: 1, checkpoint_every: 2, loggers: []}}
"""
POINTS = 3


def compute_here(computed: list[str], most: int = 1000) -> Callable[..., dict[str, RunState]]:
    """For `commands.run_missing`: the runs one after the other in this process, `most` of them."""

    def compute(runs: list[RunConfig], root: Path, *_: object) -> dict[str, RunState]:
        for run in runs:
            if len(computed) == most:
                raise KeyboardInterrupt
            folder = run_folder(root, run)
            make_ready(run, folder)
            assert work(folder) == 0
            computed.append(folder.relative_to(root).as_posix())
        return {}

    return compute


def no_memory_plan(*_: object) -> None:
    raise NotImplementedError("not what these tests are about")


class Tuned:
    """A tiny suite of the tuned track, stopped once in the middle of its trials and then finished."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / "tiny.yaml"
        corpus = write_corpus(root / "corpus")
        self.file.write_text(SUITE.format(backbone=json.dumps(BACKBONE), corpus=corpus))
        self.words = ["run", str(self.file), "--runs", str(root / "runs"), "--records", str(root / "records")]
        self.before: list[str] = []
        self.after: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "measure_missing_costs", lambda *_: None)
            patch.setattr(planning, "measure_run", no_memory_plan)
            patch.setattr(leaderboard, "write_figures", lambda *_: [])
            patch.setattr(commands, "run_missing", compute_here(self.before, most=4))
            assert cli.main(self.words) == 1
            patch.setattr(commands, "run_missing", compute_here(self.after))
            assert cli.main(self.words) == 0

    @property
    def suite(self) -> Any:
        return load_suite(str(self.file))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return Tuned(tmp_path_factory.mktemp("tuned"))


def folder_of(tuned: Tuned) -> Path:
    """Where the runs are, not the trials."""
    return tuned.root / "runs" / f"tiny-{protocol_id(tuned.suite)}"


def records(tuned: Tuned, suite: str) -> list[Record]:
    return [each for each in read_records(tuned.root / "records") if each.identity.suite == suite]


def test_trials_come_first_every_variant_has_as_many_and_none_is_done_twice(tuned: Tuned) -> None:
    done = [*tuned.before, *tuned.after]
    assert len(done) == len(set(done)) == 2 * POINTS + 2
    assert all(name.startswith("tiny-search-") for name in done[: 2 * POINTS])
    assert {name.split("/")[1] for name in done[2 * POINTS :]} == {"baseline", "hc-static"}
    for variant in ("baseline", "hc-static"):
        assert sum(f"/{variant}/" in name for name in done[: 2 * POINTS]) == POINTS


def test_a_run_trains_with_the_values_that_its_own_trials_chose(tuned: Tuned) -> None:
    trials = records(tuned, "tiny-search")
    for record in records(tuned, "tiny"):
        own = [each for each in trials if each.identity.variant == record.identity.variant]
        finite = [each for each in own if each.validation_loss is not None]
        assert 1 < len(finite) <= len(own) == POINTS
        best = min(finite, key=lambda each: each.validation_loss or 0.0)
        wanted: Any = best.configuration["optimizer"]
        said: Any = record.configuration
        assert said["tuned"] == {name: wanted[name] for name in ("learning_rate", "weight_decay")}
        assert said["optimizer"]["learning_rate"] == 1e-3  # the protocol's own stands as it was
        assert record.tuning is not None
        assert (record.tuning.runs, record.tuning.suite) == (POINTS, "tiny-search")
        assert {trial.record for trial in record.tuning.trials} == {each.digest for each in own}
        metrics = folder_of(tuned) / record.identity.variant / "seed0" / "metrics.csv"
        rates = [line.split(",") for line in metrics.read_text().splitlines()]
        column = rates[0].index("learning_rate")
        assert max(float(row[column]) for row in rates[1:] if row[column]) == pytest.approx(
            wanted["learning_rate"] * 0.775  # the cosine of the last of three steps
        )


def test_trials_and_runs_are_validated_on_other_rows_and_trials_answer_no_tasks(tuned: Tuned) -> None:
    trial = next(each for each in records(tuned, "tiny-search") if each.validation_loss)
    assert trial.configuration["data"]["validation_split"] == "selection"  # type: ignore[index,call-overload]
    assert trial.evaluation is None and trial.configuration["search"] is None
    suite = load_suite("quick-tuned")
    (first, *_) = run_configs(search_suite(suite) or suite)
    assert (first.data.validation_split, first.evaluation.tasks) == ("selection", [])


def test_everything_stands_every_check(tuned: Tuned, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--json", str(tuned.root / "records")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["records"] == 2 * POINTS + 2
    assert not {note["check"] for note in report["notes"]} & {"choice", "trials", "protocol id"}


def test_the_page_says_which_track_its_rows_belong_to_and_what_was_chosen(tuned: Tuned) -> None:
    text = (folder_of(tuned) / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert "Validation loss, tuned track" in text and "**Track**: tuned:" in text
    rows = [line for line in text.partition("## Tuned values")[2].splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[2:4]] == ["baseline", "hc-static"]
    (study,) = (tuned.root / "runs").glob("tiny-search-study/leaderboard/leaderboard.md")
    assert "**Track**: fixed:" in study.read_text(encoding="utf-8")


def test_a_finished_suite_is_left_alone(tuned: Tuned) -> None:
    computed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "run_missing", compute_here(computed))
        patch.setattr(planning, "measure_run", no_memory_plan)
        patch.setattr(commands, "_collate", lambda *_: None)
        assert cli.main(tuned.words) == 0
    assert not computed


def test_a_folder_that_was_trained_with_other_chosen_values_is_refused(tuned: Tuned) -> None:
    (run, *_) = run_configs(tuned.suite)
    folder = run_folder(tuned.root / "runs", run)
    check_same_run(run, folder)  # before its trials are read nothing is said
    with pytest.raises(UsageError, match="its tuned is"):
        check_same_run(dataclasses.replace(run, tuned=TunedConfig(1e6, 0.1)), folder)


def test_a_run_of_the_tuned_track_is_not_trained_before_values_are_chosen(
    tuned: Tuned, tmp_path: Path
) -> None:
    (run, *_) = run_configs(tuned.suite)
    with pytest.raises(UsageError, match="baseline is not tuned: expected chosen values"):
        fit(run, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_the_trials(tuned: Tuned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[str] = []

    def measure(run: RunConfig, _: object) -> None:
        measured.append(run.variant_name)
        raise NotImplementedError

    monkeypatch.setattr(planning, "measure_run", measure)
    trials = search_suite(tuned.suite)
    assert trials is not None
    rows = planning.plan(trials, tmp_path, count(run_configs(trials)))
    assert [(row.arm, row.variant, row.runs) for row in rows][:2] == [
        ("lr-0.001", "baseline", 1),
        ("lr-0.001", "hc-static", 1),
    ]
    assert len(rows) == 2 * POINTS and measured == ["baseline", "hc-static"]


def test_a_single_run_needs_its_trials(tuned: Tuned, tmp_path: Path) -> None:
    words = ["train", str(tuned.file), "variant=baseline", "seed=3", "--runs"]
    with pytest.raises(UsageError, match="the trials of baseline are not finished: mhc-bench run"):
        commands.train(words[1], words[2:4], tmp_path)
    assert not list(tmp_path.iterdir())
    assert cli.main([*words, str(tuned.root / "runs")]) == 0
    assert read_record(folder_of(tuned) / "baseline" / "seed3" / "record.json").configuration["tuned"]


def test_a_variant_whose_trials_are_not_finished_waits_and_the_others_go_on(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[RunConfig] = []

    def fail_all_but_the_baseline(runs: list[RunConfig], root: Path, *_: object) -> dict[str, RunState]:
        started.extend(runs)
        if runs[0].suite == "tiny-search":
            source = tuned.root / "runs"
            for run in runs:
                if run.variant_name == "baseline":
                    shutil.copytree(run_folder(source, run), run_folder(root, run), dirs_exist_ok=True)
        return {}

    monkeypatch.setattr(commands, "run_missing", fail_all_but_the_baseline)
    monkeypatch.setattr(commands, "measure_missing_costs", lambda *_: None)
    monkeypatch.setattr(planning, "measure_run", no_memory_plan)
    monkeypatch.setattr(commands, "_collate", lambda *_: None)
    assert cli.main(["run", str(tuned.file), "--runs", str(tmp_path)]) == 75
    assert {run.variant_name for run in started if run.suite == "tiny"} == {"baseline"}
    assert "hc-static seed 0: its trials are not finished" in capsys.readouterr().out


def tampered(tuned: Tuned, folder: Path, change: Callable[[Content], object], suite: str = "tiny") -> Report:
    """`verify` of a copy of the records in which those of one suite's baseline are changed."""
    paths = sorted((tuned.root / "records").rglob("seed*.json"))
    assert len(paths) == 2 * POINTS + 2
    for path in paths:
        content = json.loads(path.read_bytes())
        if content["identity"]["suite"] == suite and content["identity"]["variant"] == "baseline":
            change(content)
        target = folder / path.relative_to(tuned.root / "records")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(canonical(content), encoding="utf-8")
    return verify([folder], Tools(identify=identify))


def other_choice(content: Content) -> None:
    content["configuration"]["tuned"] = {"learning_rate": 1e6, "weight_decay": 0.1}


def lose_a_trial(content: Content) -> None:
    content["tuning"]["trials"].pop()
    content["tuning"]["runs"] -= 1


def flatter_a_trial(content: Content) -> None:
    trial = next(each for each in content["tuning"]["trials"] if each["learning_rate"] == 1e6)
    trial["loss"] = 0.01
    content["configuration"]["tuned"] = {key: trial[key] for key in ("learning_rate", "weight_decay")}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (other_choice, "choice"),
        (put("configuration.tuned", None), "choice"),
        (lose_a_trial, "choice"),
        (put("tuning.runs", 99), "choice"),
        (put("tuning.suite", "elsewhere"), "choice"),
        (put("tuning.trials.0.weight_decay", 0.7), "choice"),
        (put("tuning.trials.0.seed", 8), "choice"),
        (put("configuration.search", None), "choice"),
        (put("configuration.search.seeds", 7), "choice"),
        (flatter_a_trial, "trials"),
        (put("tuning.trials.0.record", "0" * 64), "trials"),
    ],
)
def test_a_tampered_choice_is_refused(
    tuned: Tuned, tmp_path: Path, change: Callable[[Content], object], check: str
) -> None:
    assert check in {problem.check for problem in tampered(tuned, tmp_path, change).problems}


@pytest.mark.parametrize(
    "change",
    [put("configuration.data.validation_split", "validation"), put("configuration.training.steps", 4)],
    ids=["on the reported rows", "of another length"],
)
def test_a_trial_of_another_kind_is_refused(
    tuned: Tuned, tmp_path: Path, change: Callable[[Content], object]
) -> None:
    """Its digest is written into the tuned record, so that only what it says gives it away."""
    first = tampered(tuned, tmp_path / "first", change, suite="tiny-search")
    assert "trials" in {problem.check for problem in first.problems}  # digests that no record has
    renamed = {
        read_record(path).digest: read_record(
            tmp_path / "first" / path.relative_to(tuned.root / "records")
        ).digest
        for path in (tuned.root / "records").glob("tiny-search-*/baseline/seed7.json")
    }

    def follow(content: Content) -> None:
        for trial in content["tuning"]["trials"]:
            trial["record"] = renamed[trial["record"]]

    for path in (tmp_path / "first").glob("tiny-?????*/baseline/seed0.json"):
        if not path.parts[-3].startswith("tiny-search"):
            content = json.loads(path.read_bytes())
            each(follow)(content)
            path.write_text(canonical(content), encoding="utf-8")
    problems = verify([tmp_path / "first"], Tools(identify=identify)).problems
    assert "trials" in {problem.check for problem in problems}

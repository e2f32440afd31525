"""The verbs that run something: each is one function, called by the command line."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from rich.console import Console

from mhc_bench.config import (
    RunConfig,
    SuiteConfig,
    check_same_run,
    load_run_config,
    load_suite,
    run_configs,
    run_folder,
    save_run_config,
)
from mhc_bench.errors import RunError, UsageError
from mhc_bench.suite import plan as planning
from mhc_bench.suite.cost import measure_missing_costs
from mhc_bench.suite.preflight import preflight
from mhc_bench.suite.record import record_run, write_origin
from mhc_bench.suite.report import Reporter
from mhc_bench.suite.runner import missing_runs, run_missing, slots
from mhc_bench.suite.state import RECORD_FILE, TRAINING_FILE, read_state
from mhc_bench.suite.worker import complete_run, evaluate_run, is_first_rank, train_run


def run(name: str, overrides: list[str], root: Path, dry_run: bool, records: Path | None) -> int:
    """Train, evaluate and collate all that is missing of a suite."""
    console = Console()
    suite = load_suite(name, overrides)
    missing = missing_runs(suite, root)
    counts = preflight(run_configs(suite))
    console.print(planning.to_table(planning.plan(suite, root, counts)))
    console.print(f"{len(missing)} of {len(run_configs(suite))} runs are missing.")
    if dry_run:
        for each in missing:
            console.print(f"  {Reporter.name(each)}: {read_state(run_folder(root, each)).standing}")
        return 0
    failed = _compute(suite, missing, root, console, shlex.join(["mhc-bench", "run", name, *overrides]), overrides)
    _collate(suite, root, records, console)
    for title, state in failed.items():
        console.print(f"failed: {title}: {state.detail}", markup=False)
    return 1 if failed else 0


def _compute(
    suite: SuiteConfig, missing: list[RunConfig], root: Path, console: Console, command: str, overrides: list[str]
) -> dict[str, object]:
    if not missing:
        return {}
    measure_missing_costs(run_configs(suite), root, console)
    for each in missing:
        write_origin(run_folder(root, each), command, overrides, suite.note)
    done = len(run_configs(suite)) - len(missing)
    with Reporter(console, len(missing) + done, done) as reporter:
        places = slots(suite, device_count(suite))
        return dict(run_missing(missing, root, places, reporter))


def device_count(suite: SuiteConfig) -> int:
    """GPUs of this machine, where the suite uses any."""
    if suite.hardware.accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _collate(suite: SuiteConfig, root: Path, records: Path | None, console: Console) -> None:
    """The leaderboard of all finished runs of the suite, and their published copies where asked for."""
    from mhc_bench.evidence import build_leaderboard, read_record

    finished = {
        run_folder(root, each): each
        for each in run_configs(suite)
        if read_state(run_folder(root, each)).finished
    }
    if not finished:
        console.print("No run has finished: there is nothing to rank.")
        return
    out = leaderboard_folder(root, suite)
    build_leaderboard([read_record(folder / RECORD_FILE) for folder in finished], out)
    if records:
        for folder, each in finished.items():
            publish(folder, run_folder(records, each).with_suffix(".json"))
    console.print(f"\n{(out / 'summary.txt').read_text(encoding='utf-8')}", markup=False, highlight=False)
    console.print(f"Leaderboard: {out / 'leaderboard.md'}", highlight=False)


def leaderboard_folder(root: Path, suite: SuiteConfig) -> Path:
    """Where the leaderboard of a suite is written: beside its runs; a study's beside its protocols."""
    runs = run_configs(suite)
    protocols = {each.protocol_id for each in runs}
    name = f"{suite.name}-{runs[0].protocol_id}" if len(protocols) == 1 else f"{suite.name}-study"
    return root / name / "leaderboard"


def publish(folder: Path, path: Path) -> None:
    """Copy a run's record to its place among the published ones, which are never overwritten with another."""
    source = folder / RECORD_FILE
    if path.exists() and path.read_bytes() != source.read_bytes():
        raise RunError(f"{path} holds another record, and records are immutable: publish to another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)


def single_run(name: str, overrides: list[str]) -> RunConfig:
    """The one run that `variant=`, `seed=` and, for a study, `arm=` select.

    Raises:
        UsageError: when they are missing.
    """
    keys = {"variant": "variants", "seed": "seeds", "arm": "arms"}
    pairs = [item.partition("=") for item in overrides]
    given = {key for key, _, _ in pairs}
    rest = [item for item in overrides if item.partition("=")[0] not in keys]
    if not {"variant", "seed"} <= given:
        raise UsageError(f"train needs variant= and seed=, such as: mhc-bench train {name} variant=mhc seed=0")
    chosen = [f"{keys[key]}=[{value}]" for key, _, value in pairs if key in keys]
    runs = run_configs(load_suite(name, [*rest, *chosen]))
    if len(runs) > 1:
        raise UsageError(f"{name} is a study: train needs arm=, one of {', '.join(run.arm for run in runs)}")
    return runs[0]


def train(name: str, overrides: list[str], root: Path) -> int:
    """One training run; where its suite has no tasks, its record too."""
    each = single_run(name, overrides)
    folder = run_folder(root, each)
    check_same_run(each, folder)
    if is_first_rank():
        preflight([each])
        save_run_config(each, folder)
        write_origin(folder, shlex.join(["mhc-bench", "train", name, *overrides]), overrides, "")
    train_run(each, folder)
    if not is_first_rank():
        return 0
    if not each.evaluation.tasks and not (folder / RECORD_FILE).exists():
        record_run(each, folder)
    Console().print(f"trained: {folder}", highlight=False)
    return 0


def evaluate(folder: Path, overrides: list[str]) -> int:
    """lm-eval on one run. Overridden settings give a report, never a record: they are another protocol."""
    each = load_run_config(folder)
    if not (folder / TRAINING_FILE).exists():
        raise UsageError(f"{folder} is not trained yet: mhc-bench train {each.suite} comes first")
    from mhc_bench.evaluation import evaluate as lm_eval
    from mhc_bench.suite.overridden import with_evaluation

    if overrides:
        changed, place = with_evaluation(each, folder, overrides)
        summary = lm_eval(changed, folder, out=place)
    else:
        evaluate_run(each, folder)
        complete_run(each, folder)
        return 0
    Console().print(json.dumps(summary.to_json(), indent=1), highlight=False)
    return 0


def leaderboard(records_dir: Path, suite: str | None, out: Path | None) -> int:
    """Records to tables and figures."""
    from mhc_bench.evidence import build_leaderboard, read_records

    records = [each for each in read_records(records_dir) if suite in (None, each.identity.suite)]
    if not records:
        raise UsageError(f"{records_dir} has no record of suite {suite!r}")
    place = out or records_dir / "leaderboard"
    build_leaderboard(records, place)
    Console().print(f"{(place / 'summary.txt').read_text(encoding='utf-8')}\n{place}", highlight=False)
    return 0


def plan(name: str, overrides: list[str], root: Path, as_json: bool) -> int:
    """What a suite will take."""
    suite = load_suite(name, overrides)
    rows = planning.plan(suite, root, preflight(run_configs(suite)))
    if as_json:
        print(json.dumps(planning.to_json(rows), indent=1))
    else:
        Console().print(planning.to_table(rows))
    return 0


def bench_step(name: str, overrides: list[str], steps: int, as_json: bool) -> int:
    """Step times of a suite's variants and of a hand-written loop."""
    from mhc_bench.bench import run_bench_step

    suite = load_suite(name, overrides)
    first = run_configs(suite)[: len(suite.variants)]
    report = run_bench_step(first, steps)
    print(json.dumps(report.to_json(), indent=1) if as_json else report.to_text())
    return 0



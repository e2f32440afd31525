"""The verbs that run something: each is one function, called by the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mhc_bench.config import (
    RunConfig,
    SlurmConfig,
    SuiteConfig,
    check_same_run,
    load_run_config,
    load_suite,
    plain,
    protocol_id,
    run_configs,
    run_folder,
    save_run_config,
)
from mhc_bench.config.load import parse_overrides
from mhc_bench.config.parts import merge
from mhc_bench.config.typed import typed
from mhc_bench.errors import RunError, StoppedError, UsageError
from mhc_bench.evidence.parts import Tuning
from mhc_bench.files import remove_unfinished
from mhc_bench.stopping import ends_when_told
from mhc_bench.suite import plan as planning
from mhc_bench.suite.cost import measure_missing_costs
from mhc_bench.suite.evaluating import evaluable, evaluate_run
from mhc_bench.suite.failures import record_failure, without_place
from mhc_bench.suite.locks import is_first_rank, locked, unless_taken
from mhc_bench.suite.pages import show_leaderboard
from mhc_bench.suite.preflight import (
    check_evaluations,
    check_folder,
    check_machine,
    check_nodes,
    count,
    preflight,
)
from mhc_bench.suite.publishing import Publication, editions
from mhc_bench.suite.record import record_run, write_origin
from mhc_bench.suite.report import Reporter
from mhc_bench.suite.retraining import put_back_if_damaged
from mhc_bench.suite.runner import missing_runs, run_missing, slots
from mhc_bench.suite.slurm import ask_jobs, check_slurm
from mhc_bench.suite.state import EVALUATION_FILE, REFUSED, TRAINING_FILE, RunState, read_state
from mhc_bench.suite.tuning import settled, stages, tunings
from mhc_bench.suite.waiting import job_line, run_as_jobs
from mhc_bench.suite.worker import complete_run, recorded, train_run


def run(name: str, overrides: list[str], root: Path, dry_run: bool, publication: Publication | None) -> int:
    """Train, evaluate and collate all that is missing of a suite."""
    console = Console()
    suite = load_suite(name, overrides)
    check_folder("--runs", root)
    if publication is not None:
        check_folder("--records", publication.records)
    parts = stages(suite)
    missing = [run for part in parts for run in missing_runs(part, root)]
    check_launch(suite)
    runs = [run for part in parts for run in run_configs(part)]
    counts = preflight(runs)
    console.print(planning.to_table([row for part in parts for row in planning.plan(part, root, counts)]))
    console.print(f"{len(missing)} of {len(runs)} runs are missing.")
    if dry_run:
        _tell_missing(suite, missing, root, console)
        return 0
    check_evaluations(missing)
    command = shlex.join(["mhc-bench", "run", name, *overrides])
    unfinished: dict[str, RunState] = {}
    with ends_when_told():
        if missing and not isinstance(suite.launcher, SlurmConfig):
            # what submits jobs is not what they run on
            with _shared_files(suite, root):
                measure_missing_costs(run_configs(suite), root, console)
        for part in parts:
            unfinished |= _compute(part, root, console, command, overrides)
    for each in missing:
        state = unfinished.get(Reporter.name(each))
        if state is None or state.standing != "failed" or state.detail.startswith(REFUSED):
            continue
        # a killed process left no word itself
        record_failure(each, run_folder(root, each), without_place(state.detail))
    for part in parts:
        _collate(part, root, publication, console)
    for title, state in unfinished.items():
        console.print(f"{state.standing}: {title}: {state.detail}", markup=False)
    if any(state.standing == "failed" for state in unfinished.values()):
        return RunError.exit_code
    return StoppedError.exit_code if unfinished else 0


def check_launch(suite: SuiteConfig) -> None:
    """Refuse what cannot be started from here.

    Raises:
        UsageError: devices or commands that this machine lacks.
    """
    if isinstance(suite.launcher, SlurmConfig):
        check_slurm(suite.launcher)
    else:
        check_machine(suite.hardware)
        check_nodes(suite.hardware)


def _tell_missing(suite: SuiteConfig, missing: list[RunConfig], root: Path, console: Console) -> None:
    """One line for each missing run: where it stands, and what would be submitted for it."""
    states = ask_jobs() if isinstance(suite.launcher, SlurmConfig) else None
    for each in missing:
        folder = run_folder(root, each)
        job = "" if states is None else f"; {job_line(each, folder, states)}"
        line = f"  {Reporter.name(each)}: {read_state(folder).standing}{job}"
        console.print(line, highlight=False, markup=False)


def _compute(
    suite: SuiteConfig, root: Path, console: Console, command: str, overrides: list[str]
) -> dict[str, RunState]:
    """The missing runs of a suite; in the tuned track those whose trials are finished, the others wait."""
    missing = missing_runs(suite, root)
    if not missing:
        return {}
    known = tunings(suite, root)
    ready = settled(missing, known)
    for each in ready:
        check_same_run(each, run_folder(root, each))
        with unless_taken(run_folder(root, each)) as mine:
            if mine:
                tuning = known[each.arm, each.variant_name]
                write_origin(run_folder(root, each), command, overrides, suite, tuning)
    waiting = {
        Reporter.name(each): RunState("missing", "its trials are not finished")
        for each in missing
        if (each.arm, each.variant_name) not in known
    }
    total = len(run_configs(suite))
    with Reporter(console, total, total - len(missing)) as reporter:
        if isinstance(suite.launcher, SlurmConfig):
            return waiting | run_as_jobs(ready, root, suite.launcher, reporter)
        devices = device_count(suite)
        return waiting | run_missing(ready, root, slots(suite, devices), devices, reporter)


@contextlib.contextmanager
def _shared_files(suite: SuiteConfig, root: Path) -> Iterator[None]:
    """Inside, this process alone writes what the runs of a suite share; what a killed one left is removed."""
    folders = {run_folder(root, each).parents[1] for each in run_configs(suite)}
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):
            stack.enter_context(locked(folder))
            for path in folder.glob(".*.tmp"):
                path.unlink()
        yield


def device_count(suite: SuiteConfig) -> int:
    """GPUs of this machine, where the suite uses any."""
    if suite.hardware.accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _collate(suite: SuiteConfig, root: Path, publication: Publication | None, console: Console) -> None:
    """The leaderboard of all recorded runs of the suite, and their published copies where asked for."""
    runs = {run_folder(root, each): each for each in run_configs(suite)}
    recorded = [folder for folder in runs if editions(folder)]
    if publication is not None:
        for folder in recorded:
            publication.add(folder, runs[folder])
    if any(read_state(folder).finished for folder in runs):
        out = leaderboard_folder(root, suite)
        with _shared_files(suite, root):
            remove_unfinished(out)
            show_leaderboard(recorded, out, console)
    else:
        console.print("No run has finished: there is nothing to rank.")


def leaderboard_folder(root: Path, suite: SuiteConfig) -> Path:
    """Where the leaderboard of a suite is written: beside its runs; a study's beside its protocols."""
    runs = run_configs(suite)
    protocols = {each.protocol_id for each in runs}
    name = f"{suite.name}-{runs[0].protocol_id}" if len(protocols) == 1 else f"{suite.name}-study"
    return root / name / "leaderboard"


def single_run(name: str, overrides: list[str]) -> tuple[SuiteConfig, RunConfig]:
    """The one run of a suite that `variant=`, `seed=` and, for a study, `arm=` select.

    Raises:
        UsageError: when they are missing.
    """
    keys = {"variant": "variants", "seed": "seeds", "arm": "arms"}
    pairs = [item.partition("=") for item in overrides]
    given = {key for key, _, _ in pairs}
    rest = [item for item in overrides if item.partition("=")[0] not in keys]
    if not {"variant", "seed"} <= given:
        raise UsageError(
            f"train needs variant= and seed=, such as: mhc-bench train {name} variant=mhc seed=0"
        )
    chosen = [f"{keys[key]}=[{value}]" for key, _, value in pairs if key in keys]
    suite = load_suite(name, [*rest, *chosen])
    runs = run_configs(suite)
    if len(runs) > 1:
        raise UsageError(f"{name} is a study: train needs arm=, one of {', '.join(run.arm for run in runs)}")
    return suite, runs[0]


def train(name: str, overrides: list[str], root: Path) -> int:
    """One training run; where its suite has no tasks, its record too."""
    suite, wanted = single_run(name, overrides)
    check_folder("--runs", root)
    each, tuning = _with_choice(name, suite, wanted, root)
    folder = run_folder(root, each)
    check_same_run(each, folder)
    if isinstance(suite.launcher, SlurmConfig):
        raise UsageError("train computes here: launcher=slurm is for mhc-bench run")
    check_machine(suite.hardware)
    _follow_torchrun()
    if is_first_rank():
        preflight([each])
        _note_gap(each)
    command = shlex.join(["mhc-bench", "train", name, *overrides])
    with ends_when_told(), locked(folder):
        if is_first_rank() and not read_state(folder).finished:  # a record holds the digests of these
            save_run_config(each, folder)
            write_origin(folder, command, overrides, suite, tuning)
        with recorded(each, folder):
            if is_first_rank():
                put_back_if_damaged(each, folder)
            train_run(each, folder)
            if not is_first_rank():
                return 0
            if not (evaluable(each, folder) or read_state(folder).finished):
                record_run(each, folder)
    Console().print(f"trained: {folder}", highlight=False, soft_wrap=True, markup=False)
    return 0


def _with_choice(name: str, suite: SuiteConfig, run: RunConfig, root: Path) -> tuple[RunConfig, Tuning]:
    """The run with the values that its trials chose, where it has any, and what the choosing took.

    Raises:
        UsageError: the trials are not finished.
    """
    known = tunings(suite, root)
    ready = settled([run], known)
    if not ready:
        raise UsageError(
            f"the trials of {run.variant_name} are not finished: mhc-bench run {name} makes them"
        )
    return ready[0], known[run.arm, run.variant_name]


def _follow_torchrun() -> None:
    """A rank of torchrun ends with it: a node whose agent has died must not go on writing."""
    from mhc_bench.training.checks import launched
    from mhc_bench.training.launch import end_with_parent

    if launched():
        end_with_parent()


def _note_gap(run: RunConfig) -> None:
    """Training alone can go on without the evaluation's data: another machine may evaluate."""
    from mhc_bench.evaluation import gap

    lacking = gap(run.evaluation.tasks)
    if lacking:
        print(f"note: the evaluation cannot run here: it needs {lacking}")


def evaluate(folder: Path, overrides: list[str]) -> int:
    """lm-eval on one run. Overridden settings are another protocol: they give a report, never a record."""
    each = load_run_config(folder)
    if not (folder / TRAINING_FILE).exists():
        raise UsageError(f"{folder} is not trained yet: mhc-bench train {each.suite} comes first")
    place = folder
    if overrides:
        each = with_overrides(each, overrides)
        place = folder / "evaluations" / each.protocol_id
    if not each.evaluation.tasks:
        raise UsageError(f"suite {each.suite} has no tasks: name some, such as evaluation.tasks=[mhc_world]")
    if not evaluable(each, folder):
        raise RunError(f"{folder} diverged: there is nothing to evaluate")
    if overrides:
        with locked(folder):
            evaluate_run(each, folder, place)
    else:
        with recorded(each, folder):
            with locked(folder):
                evaluate_run(each, folder, place)
            complete_run(each, folder)
    if is_first_rank():
        _print_scores(place)
    return 0


def with_overrides(run: RunConfig, overrides: list[str]) -> RunConfig:
    """A run with other evaluation settings, and so another protocol id.

    Raises:
        UsageError: an override of anything but the evaluation.
    """
    over = parse_overrides(overrides)
    other = sorted(set(over) - {"evaluation"})
    if other:
        raise UsageError(
            f"eval can change evaluation.* only, not {', '.join(other)}: train another run for that"
        )
    changed = typed(RunConfig, merge(plain(run), over), "eval")
    return dataclasses.replace(changed, protocol_id=protocol_id(changed))


def _print_scores(folder: Path) -> None:
    from mhc_bench.evaluation import read_summary

    summary = read_summary(folder)
    assert summary is not None
    table = Table("task", "metric", "score", "± stderr", "n", "shots", "chance", box=None, pad_edge=False)
    for name, task in summary.tasks.items():
        numbers = (
            f"{task.value:.3f}",
            _optional(task.stderr),
            str(task.n),
            str(task.shots),
            _optional(task.chance),
        )
        table.add_row(*map(Text, (name, task.metric, *numbers)))
    Console().print(table)
    Console().print(f"{folder / EVALUATION_FILE}", highlight=False, soft_wrap=True, markup=False)


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def plan(name: str, overrides: list[str], root: Path, as_json: bool) -> int:
    """What a suite will take."""
    suite = load_suite(name, overrides)
    parts = stages(suite)
    counts = count(run for part in parts for run in run_configs(part))
    rows = [row for part in parts for row in planning.plan(part, root, counts)]
    if as_json:
        print(json.dumps(planning.to_json(rows), indent=1))
    else:
        Console().print(planning.to_table(rows))
    return 0

"""`mhc-bench reproduce`: a recorded run, run again through the same stages, and compared."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mhc_bench.config import RunConfig, protocol_id, run_folder, save_run_config
from mhc_bench.config.identity import PROTOCOL_VERSION
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence import Record, read_record, read_records
from mhc_bench.evidence.compare import compare_environment, compare_results, judge, seed_interval
from mhc_bench.evidence.parts import Numerics, Provenance
from mhc_bench.evidence.record import RESULTS
from mhc_bench.evidence.reproduction import Difference, Reproduction, reproduction_json
from mhc_bench.evidence.store import given_record
from mhc_bench.files import write_json, write_text
from mhc_bench.suite.preflight import check_evaluations, preflight
from mhc_bench.suite.record import ORIGIN_FILE, provenance
from mhc_bench.suite.report import Reporter
from mhc_bench.suite.restore import restore
from mhc_bench.suite.runner import run_missing
from mhc_bench.suite.state import RECORD_FILE

REPRODUCTION_FILE = "reproduction.json"
Repetition = tuple[Record, tuple[Difference, ...]]
"""The repetition's record, and what was different where it was made."""


def reproduce(path: Path, out: Path, by: str, repetition: Path | None = None) -> int:
    """Run a record again below `out`, say how close it came, and write `reproduction.json` there.

    Args:
        repetition: the record of a repetition that has been made already; then nothing is run.

    Returns:
        0 for identical bits or inside the interval, else 1.

    Raises:
        UsageError: no record, nothing that can be run again, or `out` is in use.
        RunError: the run failed.
    """
    record = given_record(path)
    run = runnable(record, path)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists: expected a new or an empty folder")
    console = Console()
    if repetition is None:
        again, environment = made_here(record, run, out, console)
    else:
        again, environment = made_before(record, run, repetition, console)
    reproduction = compared(record, again, siblings(path, record), environment, by)
    write_text(out / REPRODUCTION_FILE, reproduction_json(reproduction))
    show(console, reproduction, again, out / REPRODUCTION_FILE)
    return 0 if reproduction.verdict in ("identical bits", "inside interval") else 1


def made_here(record: Record, run: RunConfig, out: Path, console: Console) -> Repetition:
    """The repetition, computed now, and what is different here."""
    preflight([run])
    check_evaluations([run])
    environment = environment_here(record, run)
    _tell_environment(console, run, environment)
    return rerun(record, run, out, console), environment


def made_before(record: Record, run: RunConfig, repetition: Path, console: Console) -> Repetition:
    """The repetition that a record tells of, and what was different there."""
    again = other_record(record, repetition)
    environment = compare_environment(record, again.provenance, again.numerics)
    _tell_environment(console, run, environment)
    return again, environment


def _tell_environment(console: Console, run: RunConfig, environment: tuple[Difference, ...]) -> None:
    title = f"What is different here from where {Reporter.name(run)} was recorded"
    _print_table(console, title, environment)


def runnable(record: Record, path: Path) -> RunConfig:
    """The configuration of a record that can be run again.

    Raises:
        UsageError: it failed, it is of another protocol version, or its id is not that of its configuration.
    """
    if record.status not in RESULTS:
        raise UsageError(f"{path} is {record.status}: there is no result to reproduce")
    if record.identity.protocol_version != PROTOCOL_VERSION:
        raise UsageError(
            f"{path} is of protocol version {record.identity.protocol_version}: expected {PROTOCOL_VERSION}, "
            "what this mhc-bench computes; install the version that it names"
        )
    run = restore(record.configuration)
    if protocol_id(run) != record.identity.protocol_id:
        raise UsageError(f"{path}: protocol id {record.identity.protocol_id}: expected {protocol_id(run)}")
    # what `auto` stood for then; records without numerics are from when there was one implementation
    run.hardware.operations = record.numerics.operations if record.numerics else "eager"  # type: ignore[assignment]
    return run


def other_record(record: Record, path: Path) -> Record:
    """The record of a repetition that has been made already.

    Raises:
        UsageError: it is no other record of the same run with a result.
    """
    again = given_record(path)
    names = ("suite", "protocol_id", "variant", "connection", "options", "seed")
    for name in names:
        ours, theirs = getattr(record.identity, name), getattr(again.identity, name)
        if ours != theirs:
            raise UsageError(f"{path} is of another run: {name} {theirs}, expected {ours}")
    if again.digest == record.digest or again.status not in RESULTS:
        raise UsageError(f"{path} is no repetition: expected another record of this run, with a result")
    return again


def environment_here(record: Record, run: RunConfig) -> tuple[Difference, ...]:
    """What is different on this machine, before anything is computed."""
    from mhc_bench.training.checks import world_size
    from mhc_bench.training.fitting import gpu_names
    from mhc_bench.training.numerics import numerics

    told = provenance(run, {"gpus": gpu_names(run), "world_size": world_size(run)})
    here = Provenance.model_validate_json(json.dumps(told))
    return compare_environment(record, here, Numerics(**numerics(run)))


def rerun(record: Record, run: RunConfig, out: Path, console: Console) -> Record:
    """The record of the run, computed again below `out`.

    Raises:
        RunError: it failed.
    """
    folder = run_folder(out, run)
    save_run_config(run, folder)
    write_json(folder / ORIGIN_FILE, origin(record))
    with Reporter(console, 1, 0) as reporter:
        failed = run_missing([run], out, 1, run.hardware.devices * _uses_gpus(run), reporter)
    for state in failed.values():
        raise RunError(f"{Reporter.name(run)} failed: {state.detail}")
    return read_record(folder / RECORD_FILE)


def _uses_gpus(run: RunConfig) -> bool:
    return run.hardware.accelerator == "gpu"


def origin(record: Record) -> dict[str, object]:
    """How the repeated run was asked for."""
    identity = record.identity
    return {
        "command": shlex.join(["mhc-bench", "reproduce", f"{identity.variant}/seed{identity.seed}.json"]),
        "overrides": list(record.overrides),
        "note": record.note,
        "started": {"seeds": [identity.seed], "variants": [identity.variant]},
        "tuning": record.tuning.model_dump() if record.tuning else None,
    }


def siblings(path: Path, record: Record) -> list[Record]:
    """The published records of the same variant and protocol, this one among them."""
    folder = path.parent.parent if path.name == RECORD_FILE else path.parent
    identity = record.identity
    return [
        each
        for each in read_records(folder)
        if (each.identity.protocol_id, each.identity.variant) == (identity.protocol_id, identity.variant)
    ]


def compared(
    record: Record, again: Record, seeds: list[Record], environment: tuple[Difference, ...], by: str
) -> Reproduction:
    """The repetition as a file that can stand beside the record."""
    differences, interval = compare_results(record, again), seed_interval(seeds)
    return Reproduction(
        schema_version=1,
        record=record.digest,
        verdict=judge(record, again, differences, interval),
        by=by,
        version=again.provenance.version,
        repetition=again.digest,
        validation_loss=again.validation_loss,
        environment=environment,
        differences=differences,
        interval=interval,
    )


def show(console: Console, reproduction: Reproduction, again: Record, path: Path) -> None:
    """Print the verdict and what differs."""
    _print_table(console, "Results that differ", reproduction.differences)
    console.print(f"{reproduction.verdict}: {explained(reproduction, again)}", markup=False)
    console.print(f"Written: {path}", highlight=False, soft_wrap=True, markup=False)


def explained(reproduction: Reproduction, again: Record) -> str:
    """The verdict in a sentence."""
    if reproduction.verdict == "identical bits":
        return "weights, losses, probes and scores are the same to the last bit"
    if reproduction.interval is None:
        return "no interval: fewer than three seeds of this variant are published beside the record"
    low, high = reproduction.interval
    return (
        f"validation loss {again.validation_loss} here; by the published seeds 95 % of runs lie between "
        f"{low:.4f} and {high:.4f}"
    )


def _print_table(console: Console, title: str, rows: tuple[Difference, ...]) -> None:
    if not rows:
        console.print(f"{title}: nothing", markup=False)
        return
    table = Table("what", "recorded", "here", title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, (row.what, row.recorded, row.here)))
    console.print(table)

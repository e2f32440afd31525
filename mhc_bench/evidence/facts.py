"""What all runs of a table share, in sentences: protocol, model, tokens, learning rate, data, provenance."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from mhc_bench.evidence.collate import Arm, Board
from mhc_bench.evidence.record import Record
from mhc_bench.evidence.text import listed

PROTOCOL_SECTIONS = ("model", "data", "training", "optimizer", "evaluation")
DIGEST = re.compile(r"\b[0-9a-f]{32,}\b")


def facts(arm: Arm) -> list[tuple[str, str]]:
    """Pairs of a heading and what it says, in the order of the page."""
    first = arm.records[0]
    said = [
        ("Protocol id", arm.protocol_id),
        ("Cost id", listed(arm.cost_ids)),
        ("Seeds", listed(arm.seeds)),
        ("Variants", "; ".join(_variant(row.runs) for row in arm.rows)),
        ("Model", _model(first)),
        ("Training", _training(first)),
        ("Track", _track(arm)),
        ("Learning rate", _learning_rate(arm)),
        ("Data", _common(arm, _data)),
        ("Source", _common(arm, _source)),
        ("Machine", _common(arm, _machine)),
        ("Packages", _common(arm, _packages)),
    ]
    return [(heading, text) for heading, text in said if text]


def _section(record: Record, *names: str) -> Mapping[str, JsonValue]:
    found: JsonValue = record.configuration
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _variant(runs: Mapping[int, Record]) -> str:
    identity = next(iter(runs.values())).identity
    options = listed(f"{key} {value}" for key, value in sorted(identity.options.items()))
    return f"{identity.variant} = {identity.connection}{f' ({options})' if options else ''}"


def _model(record: Record) -> str:
    fields = listed(f"{key} {value}" for key, value in sorted(_section(record, "model", "backbone").items()))
    family = _section(record, "model").get("family", "unknown")
    return f"{family}{f': {fields}' if fields else ''}"


def _training(record: Record) -> str:
    training = _section(record, "training")
    steps, batch = training.get("steps"), training.get("batch_tokens")
    if not isinstance(steps, int) or not isinstance(batch, int):
        return ""
    length, precision = training.get("sequence_length"), training.get("precision", "fp32")
    return f"{steps * batch:,} tokens in {steps} steps of {batch}, sequences of {length}, {precision}"


def _track(arm: Arm) -> str:
    if arm.track == "fixed":
        return "fixed: every variant trains with the protocol's optimizer"
    seeds = _section(arm.records[0], "search").get("seeds")
    told = listed(seeds) if isinstance(seeds, list) else ""
    return (
        "tuned: every variant trains with the values of the grid that did best in its own trials, by the "
        f"lowest mean loss on the selection split; trial seeds {told}"
    )


def _learning_rate(arm: Arm) -> str:
    optimizer = _section(arm.records[0], "optimizer")
    schedule = _section(arm.records[0], "optimizer", "schedule")
    clip = optimizer.get("clip")
    clipping = "no clipping" if clip is None else f"gradients clipped at {clip}"
    note = _common(arm, lambda run: run.note)
    rate, whose = optimizer.get("learning_rate"), "the same for all"
    if arm.track == "tuned":
        rate = _section(arm.records[0], "search").get("learning_rates")
        whose = "chosen for each variant"
    rate = f"{rate}, {schedule.get('shape')} schedule, {clipping}; {whose}"
    return f"{rate}. {note}" if note else rate


def _data(record: Record) -> str:
    """Each digest by its first digits; the record has all of them."""
    return listed(
        f"{key} {DIGEST.sub(lambda m: m[0][:12], text)}" for key, text in sorted(record.data.items())
    )


def _source(record: Record) -> str:
    origin = record.provenance
    state = {True: ", with uncommitted changes", False: "", None: ""}[origin.dirty]
    return f"mhc-bench {origin.version}, commit {(origin.commit or 'unknown')[:12]}{state}"


def _machine(record: Record) -> str:
    hardware = record.provenance.hardware
    where = listed(hardware.gpus) if hardware.gpus else hardware.cpu
    layout = f"processes: {hardware.processes}, threads of each: {hardware.threads}"
    return f"{where}, {layout}, {record.provenance.platform}"


def _packages(record: Record) -> str:
    packages = {**record.provenance.packages, "python": record.provenance.python}
    return listed(f"{name} {version}" for name, version in sorted(packages.items()))


def _common(arm: Arm, text: Callable[[Record], str]) -> str:
    """What the runs say, each distinct text once, in the order of the runs."""
    return "; ".join(dict.fromkeys(said for record in arm.records if (said := text(record))))


def differing_fields(board: Board) -> dict[str, list[str]]:
    """The protocol fields in which the arms of a study differ: dotted name -> value in each arm."""
    flat = [_flat(arm.records[0].configuration) for arm in board.arms]
    names = sorted({name for fields in flat for name in fields if name.split(".")[0] in PROTOCOL_SECTIONS})
    columns = {name: [_value(fields.get(name)) for fields in flat] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _flat(content: Mapping[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in content.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        found.update(inner)
    return found


def _value(value: JsonValue) -> str:
    return "none" if value is None else str(value)

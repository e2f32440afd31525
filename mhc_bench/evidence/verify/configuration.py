"""Checks of the configuration: ids recomputed, and nothing but the residual connection differing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mhc_bench.evidence.verify.checks import (
    Entry,
    Finding,
    Remark,
    Tools,
    UnavailableError,
    named,
    protocol_check,
    record_check,
)

BASELINE = "baseline"
OF_ONE_RUN = frozenset(
    {
        "variant",
        "variant_name",
        "seed",
        "suite",
        "arm",
        "protocol_id",
        "cost_id",
        "tuned",
        "hardware",
        "logging",
    }
)
"""Parts of a run's configuration that are no protocol: what it is, where it is computed, what is logged."""
FROM_CONFIGURATION = ("suite", "arm", "protocol_id", "cost_id", "seed")


def section(configuration: Mapping[str, Any], *names: str) -> Any:
    """A nested value of a configuration, or None where a step is missing."""
    value: Any = configuration
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


@record_check("identity", "the identity is that of the configuration which the record holds")
def identity(entry: Entry, tools: Tools) -> Iterator[Finding]:
    said, settings = entry.record.identity, entry.record.configuration
    pairs = [(name, getattr(said, name), settings.get(name)) for name in FROM_CONFIGURATION]
    pairs += [
        ("variant", said.variant, settings.get("variant_name")),
        ("connection", said.connection, section(settings, "variant", "connection")),
        ("options", said.options, section(settings, "variant", "options")),
        ("perturbation", said.perturbation, section(settings, "variant", "perturbation") or 0.0),
    ]
    for name, ours, theirs in pairs:
        if ours != theirs:
            yield entry.problem(f"identity.{name} {ours!r}", f"{theirs!r}, as in the configuration")
    if (said.variant == BASELINE) and said.connection != BASELINE:
        yield entry.problem(f"baseline is the connection {said.connection!r}", BASELINE)


@record_check(
    "perturbation", "an A/A run is the baseline under another name, its start moved; no other run's was"
)
def perturbation(entry: Entry, tools: Tools) -> Iterator[Finding]:
    said, digests = entry.record.identity, entry.record.digests
    again = said.connection == BASELINE and said.variant != BASELINE
    if said.perturbation and not again:
        yield entry.problem(f"{named(entry)} with its start moved", "the baseline under another name alone")
    if digests is None:
        return
    if bool(said.perturbation) != (digests.start is not None):
        yield entry.problem(
            f"digest of a moved start {digests.start}, perturbation {said.perturbation}", "both or none"
        )
    if digests.start == digests.shared_weights:
        yield entry.problem("a start that was moved and is the same", "other weights than the shared ones")


@record_check("protocol id", "protocol id and cost id are the digests of this configuration")
def protocol_id(entry: Entry, tools: Tools) -> Iterator[Finding | Remark]:
    said = entry.record.identity
    if tools.identify is None:
        yield entry.note("ids were not recomputed")
        return
    try:
        protocol, cost = tools.identify(entry.record.configuration, said.protocol_version)
    except UnavailableError as error:
        yield entry.note(error)
        return
    except ValueError as error:
        yield entry.problem(f"a configuration that cannot be: {error}", "one that this suite could have run")
        return
    for name, ours, theirs in (("protocol", said.protocol_id, protocol), ("cost", said.cost_id, cost)):
        if ours != theirs:
            yield entry.problem(f"{name} id {ours}", f"{theirs}, from the configuration")


@protocol_check(
    "only the residual", "runs of one protocol differ in the residual connection and the seed alone"
)
def only_the_residual(group: tuple[Entry, ...]) -> Iterator[Finding]:
    first = next((entry for entry in group if entry.record.identity.variant == BASELINE), group[0])
    shared = protocol_settings(first)
    for entry in group:
        if others := differing(shared, protocol_settings(entry)):
            yield entry.problem(f"{', '.join(others)} differ", f"as in {named(first)} ({first.file})")
    kinds: dict[str, Entry] = {}
    for entry in group:
        same = kinds.setdefault(entry.record.identity.variant, entry)
        if _residual(same) != _residual(entry):
            yield entry.problem(
                f"{named(entry)} is {_residual(entry)}", f"{_residual(same)}, as {named(same)}"
            )


def protocol_settings(entry: Entry) -> dict[str, Any]:
    """The parts of a record's configuration that are its protocol."""
    settings = {name: value for name, value in entry.record.configuration.items() if name not in OF_ONE_RUN}
    data = settings.get("data")
    if isinstance(data, dict) and data.get("kind") == "shards":
        settings["data"] = {name: value for name, value in data.items() if name != "path"}
    return settings


def _residual(entry: Entry) -> tuple[str, Any]:
    return entry.record.identity.connection, entry.record.identity.options


def differing(left: Any, right: Any, prefix: str = "") -> list[str]:
    """Dotted names of what differs. A field that one of them lacks was added later: its id tells the rest."""
    if isinstance(left, dict) and isinstance(right, dict):
        common = sorted(left.keys() & right.keys())
        return [each for name in common for each in differing(left[name], right[name], f"{prefix}{name}.")]
    return [] if left == right else [prefix.removesuffix(".")]


@record_check(
    "settings", "what the record says of precision, processes and batches is what its configuration asks"
)
def settings(entry: Entry, tools: Tools) -> Iterator[Finding]:
    record, asked = entry.record, entry.record.configuration
    hardware, numerics, evaluation = record.provenance.hardware, record.numerics, record.evaluation
    pairs: list[tuple[str, Any, Any]] = [("threads", hardware.threads, section(asked, "hardware", "threads"))]
    devices, nodes = section(asked, "hardware", "devices"), section(asked, "hardware", "nodes")
    if record.training and isinstance(devices, int) and isinstance(nodes, int):
        pairs.append(("processes", hardware.processes, devices * nodes))
        gpu = section(asked, "hardware", "accelerator") == "gpu"
        pairs.append(("GPUs named", bool(hardware.gpus), gpu))
    if numerics:
        pairs.append(("precision", numerics.precision, section(asked, "training", "precision")))
    if evaluation and evaluation.dtype is not None:
        pairs.append(("evaluation dtype", evaluation.dtype, section(asked, "training", "precision")))
    if evaluation and evaluation.batch_size is not None:
        pairs.append(("batch size", evaluation.batch_size, section(asked, "evaluation", "batch_size")))
    for name, ours, theirs in pairs:
        if ours != theirs:
            yield entry.problem(f"{name} {ours!r}", f"{theirs!r}, as in the configuration")

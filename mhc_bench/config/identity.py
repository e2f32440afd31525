"""Protocol id and cost id: short digests of what may not differ within a table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from mhc_bench.config.schema import ADDED_LATER_KEY, PLACE_KEY, HardwareConfig, Protocol, RunConfig

PROTOCOL_VERSION = 1
"""Raised when the meaning of a protocol changes while its fields do not (see docs/architecture.md)."""
DIGITS = 10
PROTOCOL_FIELDS = frozenset(field.name for field in dataclasses.fields(Protocol))


def digest(content: object) -> str:
    """The first hexadecimal digits of SHA-256 over canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def protocol_fields(protocol: Protocol) -> dict[str, Any]:
    """The fields of `Protocol` as plain values, whatever the subclass adds."""
    return {name: value for name, value in dataclasses.asdict(protocol).items() if name in PROTOCOL_FIELDS}


def identifying(part: Any) -> dict[str, Any]:
    """A configuration's fields as plain values, without places and without later additions at their default.

    So a field that is added with `metadata=ADDED_LATER` leaves the ids of published records what they are.
    """
    values = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.metadata.get(PLACE_KEY):
            continue
        if field.metadata.get(ADDED_LATER_KEY) and value == field.default:
            continue
        values[field.name] = identifying(value) if dataclasses.is_dataclass(value) else value
    return values


def protocol_id(protocol: Protocol, version: int = PROTOCOL_VERSION) -> str:
    """Digest of all that variants share and that can change a result. Names, notes and seeds stay out.

    Args:
        version: what the fields mean; another one than today's for records of its time.
    """
    parts = {name: value for name, value in identifying(protocol).items() if name in PROTOCOL_FIELDS}
    return digest({"version": version, **parts})


RUN_FIELDS = ("suite", "arm", "protocol_id", "variant_name", "variant", "seed", "tuned")
"""What makes two runs the same one."""


def run_id(run: RunConfig) -> str:
    """Digest of what tells a run from all others; its hardware may change."""
    values = dataclasses.asdict(run)
    return digest({name: values[name] for name in RUN_FIELDS})


def cost_id(protocol: Protocol, hardware: HardwareConfig, version: int = PROTOCOL_VERSION) -> str:
    """Digest of the protocol and of where it runs: times and memory compare only within one."""
    return digest({"protocol": protocol_id(protocol, version), "hardware": identifying(hardware)})

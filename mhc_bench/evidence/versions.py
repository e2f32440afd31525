"""Records of every schema version: read as the newest, their published bytes and digests left alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from mhc_bench.evidence.record import SCHEMA_VERSION, Record

NEW_IN_2 = (
    ("numerics",),
    ("started",),
    ("tuning",),
    ("supersedes",),
    ("identity", "protocol_version"),
    ("provenance", "hardware_changes"),
    ("provenance", "lock_hash"),
    ("provenance", "sharding"),
    ("training", "final_steps"),
    ("training", "last_loss"),
    ("evaluation", "dtype"),
    ("evaluation", "batch_size"),
    ("evaluation", "items"),
)
"""Fields that a record of version 1 does not have."""


def parse_record(data: bytes) -> Record:
    """The record in a file's bytes, whatever its version.

    Raises:
        ValidationError: a field is wrong.
        ValueError: a version that is not known, or a field that its version does not have.
    """
    try:
        record = Record.model_validate_json(data)
    except ValidationError:
        older = _older(data)
        if older is None:
            raise
        record = Record.model_validate_json(json.dumps(upgrade(older)))
    record._file_digest = hashlib.sha256(data).hexdigest()
    return record


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """A record's content in the newest version.

    Raises:
        ValueError: as `parse_record`.
    """
    version = content.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(f"schema_version: found {str(version)[:40]}, expected 1 to {SCHEMA_VERSION}")
    return _one_to_two(content) if version == 1 else content


def _one_to_two(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 says more: null where version 1 did not say. There was one protocol version then, 1."""
    new = {**content, "schema_version": 2}
    for *parents, name in NEW_IN_2:
        target: Any = new
        for parent in parents:
            target = target.get(parent)
        if not isinstance(target, dict):
            continue
        if name in target:
            raise ValueError(f"{'.'.join([*parents, name])}: no field of schema version 1")
        if parents:
            new[parents[0]] = {**target, name: 1 if name == "protocol_version" else None}
        else:
            new[name] = None
    return new


def _older(data: bytes) -> dict[str, Any] | None:
    """The content of a record that says that it is not of the newest version."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "schema_version" not in content:
        return None
    return content if content["schema_version"] != SCHEMA_VERSION else None

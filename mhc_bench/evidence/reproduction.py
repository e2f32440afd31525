"""A reproduction: what became of running a record again, as a small file that stands beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from mhc_bench.errors import RunError
from mhc_bench.evidence import strict
from mhc_bench.evidence.parts import Part, Sha256
from mhc_bench.evidence.store import first_problem

REPRODUCTION_NAME = re.compile(r"^(seed\d{1,10}(-\d{1,4})?)\.reproduction-\d{1,4}\.json$")
"""Published beside a record: `seed<k>.reproduction-<n>.json`; the first group is the record's stem."""

Verdict = Literal["identical bits", "inside interval", "outside interval", "no interval"]


class Difference(Part):
    """One thing that the record and its repetition both say."""

    what: str
    recorded: str
    here: str


class Reproduction(Part):
    """One repetition of a recorded run."""

    schema_version: Literal[1]
    record: Sha256
    """Digest of the record that was repeated."""
    verdict: Verdict
    by: str = ""
    """Who repeated it, in their own words; empty where they did not say."""
    version: str
    """The version of mhc-bench that repeated it."""
    repetition: Sha256 | None = None
    """Digest of the repetition's own record, for whoever gets to see it."""
    validation_loss: float | None = None
    """Of the repetition, nats per token; null where it has none."""
    environment: tuple[Difference, ...]
    """What was different here: versions, lock, commit, machine."""
    differences: tuple[Difference, ...]
    """Results that are not the same to the last bit."""
    interval: tuple[float, float] | None
    """Of the validation loss, from the published seeds of the variant."""


def contradiction(told: Reproduction) -> str | None:
    """What in a reproduction cannot be true together, if anything."""
    if (told.verdict == "identical bits") != (not told.differences):
        return f"{told.verdict} with {len(told.differences)} differences"
    if told.verdict == "no interval" and None not in (told.interval, told.validation_loss):
        return f"no interval, and {told.interval}"
    inside = _lies_inside(told)
    if told.verdict == "inside interval" and inside is not True:
        return f"inside interval, with loss {told.validation_loss} and interval {told.interval}"
    if (
        told.verdict == "outside interval"
        and inside
        and all(row.what != "status" for row in told.differences)
    ):
        return f"outside interval, with loss {told.validation_loss} and interval {told.interval}"
    return None


def _lies_inside(told: Reproduction) -> bool | None:
    if told.interval is None or told.validation_loss is None:
        return None
    return told.interval[0] <= told.validation_loss <= told.interval[1]


def parse_reproduction(data: bytes) -> Reproduction:
    """The reproduction in a file's bytes.

    Raises:
        ValueError: in one line, what is wrong.
    """
    strict.parse(data)
    try:
        return Reproduction.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


def read_reproductions(folder: Path | Iterable[Path]) -> list[Reproduction]:
    """All reproductions below a folder, or below several, in the order of their paths.

    Raises:
        RunError: when one is damaged.
    """
    folders = [folder] if isinstance(folder, Path) else list(folder)
    names = (path for place in folders for path in sorted(place.rglob("*.json")))
    return [_reproduction(path) for path in names if REPRODUCTION_NAME.match(path.name)]


def _reproduction(path: Path) -> Reproduction:
    try:
        return parse_reproduction(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not a valid reproduction: {error}") from error


def reproduction_json(reproduction: Reproduction) -> str:
    """The file's text."""
    return json.dumps(reproduction.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"


def reproduction_schema() -> str:
    """The JSON Schema of a reproduction, as committed in `results/schema-reproduction.json`."""
    return json.dumps(Reproduction.model_json_schema(), sort_keys=True, indent=1) + "\n"

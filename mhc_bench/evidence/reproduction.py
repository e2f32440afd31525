"""A reproduction: what became of running a record again, as a small file that stands beside it."""

from __future__ import annotations

import json
import re
from typing import Literal

from pydantic import ValidationError

from mhc_bench.evidence import strict
from mhc_bench.evidence.parts import Part, Sha256
from mhc_bench.evidence.store import first_problem

REPRODUCTION_NAME = re.compile(r"^seed\d{1,10}(-\d{1,4})?\.reproduction-\d{1,4}\.json$")
"""Published beside a record: `seed<k>.reproduction-<n>.json`."""

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
    environment: tuple[Difference, ...]
    """What was different here: versions, lock, commit, machine."""
    differences: tuple[Difference, ...]
    """Results that are not the same to the last bit."""
    interval: tuple[float, float] | None
    """Of the validation loss, from the published seeds of the variant."""


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


def reproduction_json(reproduction: Reproduction) -> str:
    """The file's text."""
    return json.dumps(reproduction.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"

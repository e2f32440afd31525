"""A run's configuration out of its record: the way back from JSON to the typed schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from mhc_bench.config import RunConfig
from mhc_bench.config.check import check_protocol
from mhc_bench.config.typed import typed
from mhc_bench.errors import UsageError

WHERE = "the record's configuration"


def restore(configuration: Mapping[str, Any]) -> RunConfig:
    """The run that a record's configuration describes; its ids are taken as they are.

    Raises:
        UsageError: unknown key, wrong type, or a value that makes no sense.
    """
    if "${" in json.dumps(configuration):
        raise UsageError(f"{WHERE}: it refers to other values by ${{...}}: expected resolved ones")
    try:
        run = typed(RunConfig, _with_numeric_keys(configuration), WHERE)
        check_protocol(run, run.hardware)
    except UsageError:
        raise
    except Exception as error:
        # omegaconf and comparisons meet values of senseless types with errors of many kinds
        raise UsageError(f"{WHERE}: {type(error).__name__}: {str(error)[:200]}") from error
    return run


def _with_numeric_keys(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the steps of its schedule as numbers: JSON has text keys alone."""
    content: dict[str, Any] = copy.deepcopy(dict(configuration))
    optimizer = content.get("optimizer")
    schedule = optimizer.get("schedule") if isinstance(optimizer, dict) else None
    drops = schedule.get("drops") if isinstance(schedule, dict) else None
    if isinstance(schedule, dict) and isinstance(drops, dict):
        schedule["drops"] = {_number(at): factor for at, factor in drops.items()}
    return content


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

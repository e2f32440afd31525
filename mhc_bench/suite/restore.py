"""A run's configuration out of its record: the way back from JSON to the typed schema."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mhc_bench.config import RunConfig
from mhc_bench.config.check import check_protocol
from mhc_bench.config.typed import typed


def restore(configuration: Mapping[str, Any]) -> RunConfig:
    """The run that a record's configuration describes; its ids are taken as they are.

    Raises:
        UsageError: unknown key, wrong type, or a value that makes no sense.
    """
    content: dict[str, Any] = copy.deepcopy(dict(configuration))
    schedule = (
        content.get("optimizer", {}).get("schedule") if isinstance(content.get("optimizer"), dict) else None
    )
    if isinstance(schedule, dict) and isinstance(drops := schedule.get("drops"), dict):
        # JSON has text keys alone
        schedule["drops"] = {_number(at): factor for at, factor in drops.items()}
    run = typed(RunConfig, content, "the record's configuration")
    check_protocol(run, run.hardware)
    return run


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

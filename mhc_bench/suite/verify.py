"""`mhc-bench verify`: what evidence cannot do without the configuration and torch is handed in from here."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhc_bench.config import RunConfig, TextConfig, WorldConfig, cost_id, protocol_id
from mhc_bench.config.identity import PROTOCOL_VERSION
from mhc_bench.errors import UsageError
from mhc_bench.evidence.verify import Tools, UnavailableError, verify
from mhc_bench.suite.restore import restore

MOST_LAYERS = 1000
LARGEST_WORLD = 1000
"""Beyond these a record's model is not built: a stranger's file must not keep this machine busy."""


def show(paths: list[Path], as_json: bool) -> int:
    """Check records and print what was found: 0 where nothing is wrong, 1 otherwise."""
    report = verify(paths, Tools(identify=identify, count=count))
    print(json.dumps(report.to_json(), indent=1) if as_json else report.to_text())
    return 1 if report.problems else 0


def identify(configuration: Mapping[str, Any], version: int) -> tuple[str, str]:
    """Protocol id and cost id of a record's configuration.

    Raises:
        ValueError: the configuration makes no sense.
        UnavailableError: the record is of a protocol version that is newer than this code.
    """
    if version > PROTOCOL_VERSION:
        raise UnavailableError(f"protocol version {version} is newer than this code's ({PROTOCOL_VERSION})")
    return _identify(_without_seed(configuration), version)


def count(configuration: Mapping[str, Any], flops_rule: int) -> Mapping[str, int]:
    """Parameters and FLOPs, by the record's rule, of its model, built on the meta device.

    Raises:
        ValueError: the configuration makes no sense.
        UnavailableError: torch, the variant or the vocabulary are not here.
    """
    if importlib.util.find_spec("torch") is None:
        raise UnavailableError("torch is not installed")
    return _count(_without_seed(configuration), flops_rule)


def _without_seed(configuration: Mapping[str, Any]) -> str:
    """A key for what all seeds of a variant share; neither ids nor sizes depend on the seed."""
    return json.dumps({**configuration, "seed": 0}, sort_keys=True)


@functools.lru_cache(maxsize=512)
def _identify(configuration: str, version: int) -> tuple[str, str]:
    run = _restored(json.loads(configuration))
    return protocol_id(run, version), cost_id(run, run.hardware, version)


def _restored(configuration: Mapping[str, Any]) -> RunConfig:
    try:
        return restore(configuration)
    except UsageError as error:
        raise ValueError(str(error)) from error


def _require_known(run: RunConfig) -> None:
    """Nothing is imported, read or built at length because a stranger's record says so."""
    from mhc_bench.residual import variant_names

    if run.variant.connection not in variant_names():
        raise UnavailableError(f"the connection {run.variant.connection!r} is not registered here")
    if isinstance(run.data, TextConfig):
        raise UnavailableError("its vocabulary can be told from its text alone")
    layers = run.model.backbone.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise ValueError(f"{layers} layers: expected at most {MOST_LAYERS}")
    if isinstance(run.data, WorldConfig) and not 1 <= run.data.scale <= LARGEST_WORLD:
        raise ValueError(f"a world of scale {run.data.scale}: expected 1 to {LARGEST_WORLD}")


@functools.lru_cache(maxsize=512)
def _count(configuration: str, flops_rule: int) -> Mapping[str, int]:
    from mhc_bench.suite.preflight import count as count_models

    run = _restored(json.loads(configuration))
    _require_known(run)
    try:
        (counts,) = count_models([run], flops_rule).values()
    except Exception as error:
        # transformers and torch refuse senseless sizes with errors of many kinds
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    return {**counts.parameters, "flops_per_token": counts.flops_per_token}

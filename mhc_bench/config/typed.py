"""Plain mappings into the typed schema, with errors of one line."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from mhc_bench.config.schema import (
    DATA_KINDS,
    LAUNCHER_KINDS,
    DataConfig,
    Protocol,
    RunConfig,
    SuiteConfig,
)
from mhc_bench.config.values import check_values
from mhc_bench.errors import UsageError, choose, closest

T = TypeVar("T")


def typed(kind: type[T], content: dict[str, Any], where: str) -> T:
    """`content` as an instance of the schema class `kind`.

    Args:
        where: what to call the source in an error, such as `suite quick`.

    Raises:
        UsageError: unknown key (with the nearest one), wrong type, missing value.
    """
    node = OmegaConf.structured(kind)
    for field, kinds in (("data", DATA_KINDS), ("launcher", LAUNCHER_KINDS)):
        part = content.get(field)
        if isinstance(part, dict) and "kind" in part:
            node[field] = OmegaConf.structured(kinds[choose(f"{field} kind", str(part["kind"]), kinds)])
    return _complete(kind, node, content, where)


def typed_data(content: dict[str, Any], where: str) -> DataConfig:
    """`content` as an instance of the class of its `kind`; errors as of `typed`."""
    kind = DATA_KINDS[choose("data kind", str(content.get("kind", "")), DATA_KINDS)]
    return _complete(kind, OmegaConf.structured(kind), content, where)


def _complete(kind: type[T], node: DictConfig, content: dict[str, Any], where: str) -> T:
    check_values(kind, content, "", where)
    merged = _merge(node, content, where)
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise UsageError(f"{where}: no value for {', '.join(missing)}")
    return _to_object(kind, merged)


def _to_object(kind: type[T], node: DictConfig) -> T:
    instance = OmegaConf.to_object(node)
    assert isinstance(instance, kind)
    return instance


def _merge(node: DictConfig, content: dict[str, Any], where: str) -> DictConfig:
    try:
        with warnings.catch_warnings():
            # 1 for 1.0 is what people write on a command line
            warnings.filterwarnings("ignore", "Implicit conversion", FutureWarning)
            merged = OmegaConf.merge(node, content)
    except ConfigKeyError as error:
        raise UsageError(f"{where}: {_unknown_key(error)}") from None
    except OmegaConfBaseException as error:
        raise UsageError(f"{where}: {error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(merged, DictConfig)
    return merged


def _unknown_key(error: ConfigKeyError) -> str:
    owner = error.object_type
    names = [f.name for f in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
    near = closest(str(error.key), names)
    hint = f"; did you mean {near!r}?" if near else ""
    return f"unknown key {error.full_key!r}: expected one of {', '.join(names)}{hint}"


def plain(config: SuiteConfig | RunConfig | Protocol) -> dict[str, Any]:
    """A configuration object as nested plain values, ready for YAML or JSON."""
    return dataclasses.asdict(config)

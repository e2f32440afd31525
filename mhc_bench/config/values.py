"""What OmegaConf lets pass: numbers that no JSON holds, containers of the wrong kind, 3 for true."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mhc_bench.config.schema import DATA_KINDS, LAUNCHER_KINDS, DataConfig, LauncherConfig
from mhc_bench.errors import UsageError, choose

LARGEST = 2**53 - 1
"""Of a whole number: what every reader of JSON reads back as the same number."""
INTERPOLATION = re.compile(r"(?<!\\)\$\{")
"""OmegaConf would put there another field, or a variable of the environment: records must hold neither."""
SINGLE: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}
"""Types of single values, in words."""
KINDS: dict[type, Mapping[str, type]] = {DataConfig: DATA_KINDS, LauncherConfig: LAUNCHER_KINDS}
"""Schema class -> its subclasses by their field `kind`."""


def check_values(hint: Any, value: object, name: str, where: str) -> None:
    """Refuse, in plain `content` for a schema class, what `OmegaConf.merge` would accept or crash on.

    Args:
        hint: the annotation of what `value` is to become; any other misfit is left to OmegaConf.
        name: dotted name of `value`, empty for the whole.

    Raises:
        UsageError: naming the field, its value and what was expected.
    """
    given = _unless_null(hint)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(given, value, name, where)
    elif isinstance(value, Mapping):
        _check_mapping(given, value, name, where)
    elif isinstance(value, list):
        _check_list(given, value, name, where)
    elif isinstance(value, str):
        _check_text(given, value, name, where)
    elif value is None and (get_origin(hint) in (list, dict) or hint in SINGLE):
        raise _misfit(name, value, _container(hint), where)


def _unless_null(hint: Any) -> Any:
    """What a value that may be null is where it is not."""
    kinds = [each for each in get_args(hint) if each is not NoneType]
    return kinds[0] if get_origin(hint) in (Union, UnionType) and len(kinds) == 1 else hint


def _check_number(hint: Any, value: float, name: str, where: str) -> None:
    if not math.isfinite(value):
        raise _misfit(name, value, "a finite number", where)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise _misfit(name, value, f"a whole number of at most {LARGEST}", where)
    if hint is bool:
        raise _misfit(name, value, "true or false", where)
    if _holds_more(hint):
        raise _misfit(name, value, _container(hint), where)


def _check_text(hint: Any, value: str, name: str, where: str) -> None:
    if INTERPOLATION.search(value):
        raise _misfit(name, value, "the value itself, not a reference to another one", where)
    if _holds_more(hint):
        raise _misfit(name, value, _container(hint), where)
    if hint is float and _is_not_finite(value):
        raise _misfit(name, value, "a finite number", where)


def _is_not_finite(text: str) -> bool:
    """Whether OmegaConf would read it as infinity or NaN."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _check_mapping(hint: Any, value: Mapping[str, object], name: str, where: str) -> None:
    kind = _subclass(hint, value)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        for key, inner in value.items():
            if name.endswith("]"):  # of what is in a list OmegaConf would not say where it is
                choose(f"key of {name}", str(key), hints)
            check_values(hints.get(key, Any), inner, _dotted(name, key), where)
    elif hint is Any or get_origin(hint) is dict:
        _, of_value = get_args(hint) or (Any, Any)
        for key, inner in value.items():
            check_values(of_value, inner, _dotted(name, key), where)
    else:
        raise _misfit(name, value, _container(hint), where)


def _check_list(hint: Any, value: list[object], name: str, where: str) -> None:
    if hint is not Any and get_origin(hint) is not list:
        raise _misfit(name, value, _container(hint), where)
    (of_value,) = get_args(hint) or (Any,)
    for index, inner in enumerate(value):
        check_values(of_value, inner, f"{name}[{index}]", where)


def _subclass(hint: Any, value: Mapping[str, object]) -> Any:
    """The schema class that a mapping's `kind` chooses, where there is a choice."""
    return KINDS[hint].get(str(value.get("kind")), hint) if hint in KINDS else hint


def _holds_more(hint: Any) -> bool:
    return get_origin(hint) in (list, dict) or dataclasses.is_dataclass(hint)


def _container(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_container(each) for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is list:
        return "a list"
    if get_origin(hint) is dict or dataclasses.is_dataclass(hint):
        return "a mapping"
    return SINGLE.get(hint, "a single value")


def _dotted(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _misfit(name: str, value: object, expected: str, where: str) -> UsageError:
    shown = "null" if value is None else repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return UsageError(f"{where}: {name or 'content'} is {shown}: expected {expected}")

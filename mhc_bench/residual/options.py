"""Checks of a variant's options, from its constructor's annotations, and ranges that several share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mhc_bench.errors import UsageError, choose
from mhc_bench.limits import MOST_STREAMS


def checked_options(cls: type, options: Mapping[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """`options` for the constructor of `cls`, each of its annotated type; whole numbers serve as floats.

    Raises:
        UsageError: for an unknown or missing option or a value of another type.
    """
    wanted = {k: p for k, p in inspect.signature(cls).parameters.items() if k not in given}
    for name in options:
        choose(f"option of {cls.__name__}", name, wanted)
    for name, parameter in wanted.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise UsageError(f"{cls.__name__}: option {name!r} must be given")
    hints = get_type_hints(inspect.getattr_static(cls, "__init__"))
    return {name: _checked(name, value, hints.get(name, Any)) for name, value in options.items()}


def at_least(name: str, value: int, least: int) -> int:
    """`value`, refused below `least`."""
    if value < least:
        raise UsageError(f"{name} {value}: expected a whole number from {least}")
    return value


def number_of(name: str, value: int) -> int:
    """`value` as a number of streams or fractions, refused outside 1 to `MOST_STREAMS`."""
    return from_one_to(name, value, MOST_STREAMS)


def from_one_to(name: str, value: int, most: int) -> int:
    """`value`, refused outside 1 to `most`."""
    if not 1 <= value <= most:
        raise UsageError(f"{name} {value}: expected a whole number from 1 to {most}")
    return value


def within(name: str, value: float, low: float, high: float) -> float:
    """`value`, refused outside `low` (excluded) to `high` (included) or when it is not a number."""
    if not (math.isfinite(value) and low < value <= high):
        raise UsageError(f"{name} {value}: expected more than {low:g} and at most {high:g}")
    return value


def _checked(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is UnionType and type(None) in get_args(hint):
        (inner,) = (each for each in get_args(hint) if each is not type(None))
        return None if value is None else _checked(name, value, inner)
    if get_origin(hint) is Literal:
        return choose(name, str(value), [str(choice) for choice in get_args(hint)])
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise UsageError(f"{name} {value!r}: expected {_words(hint)}")
    return value


def _words(hint: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[hint]

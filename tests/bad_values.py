"""Every option of every configuration, found by walking the schema, and values that it must refuse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from mhc_bench.config import (
    LoggerConfig,
    SearchConfig,
    SlurmConfig,
    SuiteConfig,
    TextConfig,
    VariantConfig,
    WorldConfig,
)
from mhc_bench.config.schema import ShardsConfig

BASES: tuple[tuple[type, str, tuple[str, ...]], ...] = (
    (SuiteConfig, "", ()),
    (WorldConfig, "data.", ()),
    (TextConfig, "data.", ("data=stdlib",)),
    (ShardsConfig, "data.", ("data=fineweb-edu",)),
    (SlurmConfig, "launcher.", ("launcher=slurm",)),
    (
        SearchConfig,
        "search.",
        ("optimizer.learning_rate=0.01", "search={learning_rates: [0.01], seeds: [9]}"),
    ),
    (VariantConfig, "variants.mhc.", ("variants=[mhc]",)),
    (LoggerConfig, "logging.loggers.0.", ("logging.loggers=[{class_path: CSVLogger}]",)),
)
"""Schema class, where it stands, and the overrides that put it there."""
WRONG: dict[Any, tuple[str, ...]] = {
    bool: ("maybe", "3", "[true]", "{a: 1}", "null"),
    int: ("many", "1.5", "[1]", "{a: 1}", "null", "true", "-1", "9007199254740991", "9223372036854775808"),
    float: ("many", "[1]", "{a: 1}", "null", "true", "nan", "-1", "1e300", "inf"),
    str: ("[1]", "{a: 1}", "null", "${oc.env:HOME}"),
    Literal: ("nonsense", "[1]", "{a: 1}", "null"),
    list: ("3", "{a: 1}", "word", "null", "[[1]]", "[{a: 1}]", "[null]"),
    dict: ("3", "[1]", "word", "null"),
    object: ("3", "[1]", "word", "null", "{unknown_key: 1}", "{1: 2}"),
}
"""Kind of field -> wrong types and impossible values; `object` for a group of fields."""


@dataclass(frozen=True)
class Option:
    """One field of one configuration file."""

    path: str
    hint: Any
    overrides: tuple[str, ...]

    @property
    def kind(self) -> Any:
        """The entry of `WRONG` that it has."""
        hint = without_none(self.hint)
        if dataclasses.is_dataclass(hint):
            return object
        return get_origin(hint) or hint

    @property
    def wrong(self) -> tuple[str, ...]:
        """Values that it must refuse, as a command line gives them."""
        values = (*WRONG[self.kind], *self._with_wrong_elements)
        optional = NoneType in get_args(self.hint)
        return tuple(value for value in values if not (optional and value == "null"))

    @property
    def _with_wrong_elements(self) -> tuple[str, ...]:
        """Lists and mappings that are wrong in one element."""
        match get_args(without_none(self.hint)):
            case (of_list,) if of_list in WRONG:
                return tuple(f"[{_quoted(value)}]" for value in WRONG[of_list])
            case (of_key, of_value) if {of_key, of_value} == {float}:
                keys = [f"{{{value}: 1}}" for value in WRONG[float] if value[0] not in "[{"]
                return (*keys, *(f"{{0.5: {value}}}" for value in WRONG[float]))
        return ()


def _quoted(value: str) -> str:
    return f"'{value}'" if value.startswith("$") else value


def without_none(hint: Any) -> Any:
    """`int` of `int | None`; `float` of `int | float`, `dict` of a class for it or a dictionary."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in reversed(get_args(hint)) if each is not NoneType)
    return hint


def options() -> Iterator[Option]:
    """All of them."""
    for schema, prefix, overrides in BASES:
        yield from _walk(schema, prefix, overrides)


def _walk(schema: type, prefix: str, overrides: tuple[str, ...]) -> Iterator[Option]:
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        option = Option(f"{prefix}{field.name}", hints[field.name], overrides)
        yield option
        if option.kind is object and NoneType not in get_args(option.hint):
            yield from _walk(without_none(option.hint), f"{option.path}.", overrides)


def listed() -> Iterator[tuple[Option, str]]:
    """Each option with each value that it must refuse, and an unknown key in each group."""
    for option in options():
        for value in option.wrong:
            yield option, f"{option.path}={value}"
        if option.kind is object:
            yield option, f"{option.path}.unknown_key=1"


WORDS = st.text("bcdghjkqvwxz", min_size=3, max_size=9)
"""Of letters that make no number, no truth and no choice."""


def drawn(option: Option) -> st.SearchStrategy[str]:
    """Overrides that the option must refuse, drawn at random."""
    numbers = st.integers(-(2**70), -1) | st.integers(2**53, 2**70)
    nested = st.lists(st.dictionaries(WORDS, st.integers(), min_size=1), min_size=1, max_size=3)
    values: dict[Any, st.SearchStrategy[Any]] = {
        bool: WORDS | st.integers(2) | nested,
        int: WORDS | numbers | nested | st.floats(0.1, 0.9),
        float: WORDS | numbers.filter(lambda n: n < 0) | nested | st.sampled_from([".nan", ".inf", "-.inf"]),
        str: nested | st.dictionaries(WORDS, WORDS, min_size=1),
        Literal: WORDS | nested,
        list: WORDS | st.integers() | st.dictionaries(WORDS, WORDS, min_size=1),
        dict: WORDS | st.integers() | nested,
        object: WORDS | st.integers() | nested | st.dictionaries(WORDS, WORDS, min_size=1),
    }
    shown = values[option.kind].map(lambda v: v if isinstance(v, str) else json.dumps(v))
    unknown = st.tuples(WORDS, st.integers()).map(lambda each: f"{option.path}.{each[0]}={each[1]}")
    value = shown.map(lambda text: f"{option.path}={text}")
    return value | unknown if option.kind is object else value

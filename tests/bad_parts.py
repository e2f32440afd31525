"""Options that the schema does not spell out, of variants, backbones and arms, and bad values of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import bad_values
from bad_values import Option, listed, without_none

from mhc_bench import residual
from mhc_bench.config import part_names
from mhc_bench.config.identity import PROTOCOL_FIELDS
from mhc_bench.config.parts import read_part, read_variant
from mhc_bench.model.backbone import FROM_DATA, own_fields
from mhc_bench.model.families import family_named

WRONG: dict[Any, tuple[str, ...]] = bad_values.WRONG | {
    str: ("nonsense", "3", "[1]", "{a: 1}", "null"),
    list: ("3", "{a: 1}", "word", "[nonsense]", "[[1]]", "[null]"),
    dict: ("3", "[1]", "word", "{nonsense: 1}", "{rope_theta: -1}", "{rope_type: nonsense}"),
}
"""What a name, the types of layers and the parameters of rotations must refuse."""


def variant_options(name: str) -> Iterator[Option]:
    """Each option of a shipped variant."""
    connection = residual.resolve(str(read_variant(name)["connection"]))
    hints = get_type_hints(inspect.getattr_static(connection, "__init__"))
    for option in residual.variant_options(connection):
        yield Option(f"variants.{name}.options.{option}", hints[option], (f"variants=[{name}]",))


def backbone_fields() -> Iterator[Option]:
    """Each field of a family of the shipped models: one that several families have, once."""
    seen: set[str] = set()
    for model in part_names("models"):
        kind = family_named(str(read_part("model", "models", model)["family"])).config_class
        hints = {field.name: field.type for field in dataclasses.fields(kind)}
        for name in sorted(own_fields(kind) - seen):
            yield Option(f"model.backbone.{name}", hints[name], (f"model={model}", "variants=[baseline]"))
        seen |= own_fields(kind)
    for name in sorted(FROM_DATA):
        yield Option(f"model.backbone.{name}", int, ("variants=[baseline]",))


def wrong_values(options: Iterable[Option]) -> Iterator[tuple[Option, str]]:
    """Each option of a variant or a backbone with each value that it must refuse."""
    for option in options:
        hint = without_none(option.hint)
        optional = NoneType in get_args(option.hint)
        for value in WRONG[get_origin(hint) or hint]:
            if not (optional and value == "null"):
                yield option, f"{option.path}={value}"


def in_arms() -> Iterator[tuple[Option, str]]:
    """What an arm of a study must refuse of the fields of a protocol: as the suite itself."""
    for option, override in listed():
        if option.path.split(".")[0] in PROTOCOL_FIELDS and not option.overrides:
            yield option, override


def arm(override: str) -> str:
    """The text of a suite file of one arm that holds the override."""
    path, _, value = override.partition("=")
    lines = ["base: smoke", "arms:", "  own:"]
    names = path.split(".")
    lines += [f"{'  ' * (place + 2)}{name}:" for place, name in enumerate(names)]
    return "\n".join(lines) + f" {value}\n"

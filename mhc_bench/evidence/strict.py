"""JSON from strangers: bounded in depth and numbers, without NaN and duplicate keys."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable
from typing import Any, NoReturn

DEEPEST = 32
"""Levels of nesting; a record has nine."""
LARGEST_INTEGER = 2**63 - 1
LONGEST_TEXT = 10_000
"""Characters of one text."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', flags=re.DOTALL)
_BRACKET = re.compile(rb"[\[{\]}]")


def parse(data: bytes) -> Any:
    """The JSON value in `data`.

    Raises:
        ValueError: saying what was found and what is allowed.
    """
    _refuse_depth(data)
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        raise ValueError(f"nested too deeply: expected at most {DEEPEST} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    for text in texts(value):
        _refuse_text(text)
    return value


def texts(value: Any) -> Iterable[str]:
    """Every text inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def gunzip(data: bytes, limit: int) -> bytes:
    """The content of one gzip file, never more than `limit` bytes of it.

    Raises:
        ValueError: no gzip file, one with something behind it, or one that holds more than `limit`.
    """
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"no gzip file ({error})") from None
    if len(content) > limit:
        raise ValueError(f"unpacks to more than {limit} bytes")
    if not reader.eof:
        raise ValueError("the gzip file is cut off")
    if reader.unused_data:
        raise ValueError(f"{len(reader.unused_data)} bytes behind the end of the gzip file")
    return content


def _refuse_depth(data: bytes) -> None:
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"nested too deeply: expected at most {DEEPEST} levels")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number: a value that is not finite is null")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _bounded(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) > LARGEST_INTEGER:
        raise ValueError(f"{text[:40]} is too large: expected at most {LARGEST_INTEGER}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double[:60]!r} stands twice in one object")
    return content


def _refuse_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(text)} characters: expected at most {LONGEST_TEXT}")
    if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError("half a surrogate pair is no text")

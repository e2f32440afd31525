"""The ways in which the suite ends early, and the one line that each prints."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MhcBenchError(Exception):
    """An expected failure: shown as one line, without a traceback unless `--debug` is given."""

    exit_code = 1


class UsageError(MhcBenchError):
    """Wrong usage or configuration: nothing has been written. Exit code 2."""

    exit_code = 2


class RunError(MhcBenchError):
    """Something that was asked for correctly failed: a damaged file, a run that broke. Exit code 1."""


class StoppedError(MhcBenchError):
    """Told to stop before the end: the same command goes on later. Exit code 75, `EX_TEMPFAIL`."""

    exit_code = 75


def closest(value: str, choices: Iterable[str]) -> str | None:
    """The choice that `value` most resembles, or None when nothing is near."""
    matches = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.5)
    return matches[0] if matches else None


def choose(kind: str, value: str, choices: Iterable[str]) -> str:
    """`value` if it is one of `choices`.

    Raises:
        UsageError: naming the value, the nearest choice and all choices.
    """
    known = sorted(choices)
    if value in known:
        return value
    near = closest(value, known)
    hint = f"; did you mean {near!r}?" if near else ""
    raise UsageError(f"unknown {kind} {value!r}: expected one of {', '.join(known) or '(none)'}{hint}")

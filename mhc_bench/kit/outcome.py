"""What a check finds: pass or fail, the reason, and the line of the variant to look at."""

from __future__ import annotations

import inspect
import os
import re
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from mhc_bench.kit.subject import Subject
from mhc_bench.residual import ResidualConnection

Status = Literal["pass", "fail", "skip"]
_BASES = (ResidualConnection, *ResidualConnection.__mro__[1:])


class Failed(Exception):  # noqa: N818  # a finding, not an error
    """The variant does not do what it must; `at` is its method or attribute to look at, `line` its place."""

    def __init__(self, reason: str, at: str = "", line: str = "") -> None:
        super().__init__(reason)
        self.reason, self.at, self.line = reason, at, line


class NotApplicable(Exception):  # noqa: N818  # no error either
    """There is nothing to check in this variant; the reason."""


@dataclass(frozen=True)
class Check:
    """One respect in which a variant is checked."""

    name: str
    about: str
    run: Callable[[Subject], str]
    """Returns what it measured, or nothing; raises `Failed` or `NotApplicable`."""


@dataclass(frozen=True)
class Outcome:
    """What one check found."""

    check: str
    status: Status
    reason: str = ""
    line: str = ""
    """`file:number` in the variant's source, where it failed."""


def as_check(function: Callable[[Subject], str]) -> Check:
    """A check named and described by its function."""
    about = inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return Check(function.__name__.replace("_", "-"), about, function)


def outcome_of(check: Check, subject: Subject) -> Outcome:
    """Run one check. An error of any kind inside the variant is a failure, with the line that raised it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome(check.name, "pass", check.run(subject))
    except NotApplicable as nothing:
        return Outcome(check.name, "skip", str(nothing))
    except Failed as failed:
        return Outcome(check.name, "fail", failed.reason, failed.line or line_of(subject.kind, failed.at))
    except Exception as error:
        return Outcome(check.name, "fail", one_line(error), line_of_error(subject.kind, error))


def one_line(error: BaseException) -> str:
    """Type and first line of an error."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"


def own_classes(kind: type[ResidualConnection]) -> list[type]:
    """The variant's class and its bases, as far as they are not the contract."""
    return [cls for cls in kind.__mro__ if cls not in _BASES]


def line_of(kind: type[ResidualConnection], name: str) -> str:
    """Where a variant defines the method, or sets the attribute, `name`; else where its class begins."""
    for cls in own_classes(kind):
        if name in vars(cls) and callable(vars(cls)[name]):
            return _place(cls, inspect.unwrap(vars(cls)[name]), "")
        pattern = rf"self\.{re.escape(name)}\b" if name else ""
        if pattern and (place := _place(cls, cls, pattern)):
            return place
    return _place(kind, kind, "")


def _place(cls: type, source: object, pattern: str) -> str:
    """`file:line` of an object's source, or of the first line in it that matches; empty where none does."""
    try:
        lines, first = inspect.getsourcelines(source)  # type: ignore[arg-type]
        file = inspect.getsourcefile(cls) or ""
    except (OSError, TypeError):
        return ""
    for offset, line in enumerate(lines):
        if re.search(pattern, line):
            return f"{_shown(file)}:{max(first, 1) + offset}"
    return ""


def line_of_error(kind: type[ResidualConnection], error: BaseException) -> str:
    """The deepest line of the variant's own files that an error passed through."""
    own = {inspect.getsourcefile(cls) for cls in own_classes(kind)}
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename in own]
    return f"{_shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else line_of(kind, "")


def _shown(file: str) -> str:
    """The path from here where that is shorter."""
    relative = os.path.relpath(file)
    return relative if not relative.startswith("..") else str(Path(file))


def largest(difference: torch.Tensor, scale: torch.Tensor) -> float:
    """The largest entry of a difference, relative to the largest of `scale`."""
    return float(difference.detach().abs().max() / scale.detach().abs().max().clamp(min=1e-30))


def place_of(name: str, module: nn.Module) -> str:
    """`parameter of sublayer k`, for a reason."""
    return f"{name} of sublayer {getattr(module, 'index', '?')}"

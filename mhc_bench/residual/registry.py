"""Variants by name: shipped ones, installed ones (entry points) and `module:Class`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mhc_bench.errors import UsageError, choose, closest
from mhc_bench.residual.contract import ResidualConnection
from mhc_bench.residual.options import checked_options
from mhc_bench.resources import installed_variants

PLACE = ("width", "depth", "index")
"""What every constructor is given beside its options: where its sublayer stands."""
_VARIANTS: dict[str, type[ResidualConnection]] = {}

Connection = TypeVar("Connection", bound=type[ResidualConnection])


def register_variant(name: str) -> Callable[[Connection], Connection]:
    """Class decorator: make a connection known as `name`.

    Raises:
        UsageError: when another class has the name, or the name could be read as `module:Class`.
    """

    def register(cls: Connection) -> Connection:
        known = _VARIANTS.get(name)
        if ":" in name or not name:
            raise UsageError(f"variant name {name!r}: expected a name without a colon")
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UsageError(
                f"variant name {name!r}: already taken by {known.__module__}:{known.__qualname__}"
            )
        _VARIANTS[name] = cls
        return cls

    return register


def variant_names() -> list[str]:
    """All names that `resolve` knows, sorted: shipped, registered and installed ones."""
    return sorted({*_VARIANTS, *installed_variants()})


def resolve(name: str) -> type[ResidualConnection]:
    """The class of a variant, from its registered name or `module:Class`.

    Raises:
        UsageError: naming the value and the nearest valid choice.
    """
    if ":" in name:
        return _import_class(name)
    if name not in _VARIANTS and (target := installed_variants().get(name)) is not None:
        return _import_class(target)
    return _VARIANTS[choose("variant", name, variant_names())]


def build(
    variant: str | type[ResidualConnection], *, width: int, depth: int, index: int, **options: Any
) -> ResidualConnection:
    """Make the connection of sublayer `index`, from a name that `resolve` knows or the class itself.

    Raises:
        UsageError: for an unknown variant or option, or a value of the wrong type or range.
    """
    cls = resolve(variant) if isinstance(variant, str) else variant
    return cls(width=width, depth=depth, index=index, **checked_options(cls, options, PLACE))


def variant_options(cls: type[ResidualConnection]) -> dict[str, Any]:
    """The options of a variant with their defaults (`inspect.Parameter.empty` where one must be given)."""
    parameters = inspect.signature(cls).parameters
    return {name: each.default for name, each in parameters.items() if name not in PLACE}


def _import_class(target: str) -> type[ResidualConnection]:
    """The connection class that `module:Class` names."""
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"variant {target!r}: cannot import {module_name!r} ({error})") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        near = closest(class_name, [name for name, value in vars(module).items() if _is_connection(value)])
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"variant {target!r}: {module_name!r} has no class {class_name!r}{hint}")
    if not _is_connection(cls):
        raise UsageError(f"variant {target!r}: expected a subclass of ResidualConnection")
    return cls  # type: ignore[no-any-return]


def _is_connection(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, ResidualConnection)

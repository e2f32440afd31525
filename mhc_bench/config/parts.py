"""Named parts under `configs/`: finding a file by name, its base, and what else there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mhc_bench.errors import RunError, UsageError, choose
from mhc_bench.resources import configs_dir, installed_variants

GROUPS = {
    "model": "models",
    "data": "data",
    "optimizer": "optimizers",
    "evaluation": "evaluations",
    "hardware": "hardware",
    "launcher": "launchers",
}
"""Suite field -> folder of its named parts."""
COMPARED = ("description", "variants", "arms")
"""What a suite compares; everything else of it is how, and can be another suite's, by `protocol: <suite>`."""


def part_names(folder: str) -> list[str]:
    """Names of the parts in one folder of `configs/`, sorted."""
    return sorted(path.stem for path in (configs_dir() / folder).glob("*.yaml"))


def variant_names() -> list[str]:
    """Names of the shipped variants, then of those that other packages register."""
    shipped = part_names("variants")
    return shipped + [name for name in sorted(installed_variants()) if name not in shipped]


def read_variant(name: str) -> dict[str, Any]:
    """A variant's settings: its shipped part, or the connection that another package registers.

    Raises:
        UsageError: naming the nearest variant.
    """
    if name in part_names("variants"):
        return read_part("variant", "variants", name)
    return {"connection": choose("variant", name, variant_names())}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain dictionary.

    Raises:
        UsageError: the file is not a YAML mapping.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise UsageError(f"no such configuration file: {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except OmegaConfBaseException as error:  # a key that is null
        raise UsageError(f"{path}: {error.full_key}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def part_file(kind: str, folder: str, name: str) -> Path:
    """The file of a part: a shipped name, or a path that ends in `.yaml`.

    Raises:
        UsageError: naming the nearest part.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"no such {kind} file: {name}")
        return path
    return configs_dir() / folder / f"{choose(kind, name, part_names(folder))}.yaml"


def read_part(kind: str, folder: str, name: str) -> dict[str, Any]:
    """A part with its own `base:` chain resolved, nearest file last."""
    return _with_bases(kind, folder, name, ())


def _with_bases(kind: str, folder: str, name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise UsageError(f"{kind} {name!r} is its own base: {' -> '.join((*seen, name))}")
    content = read_yaml(part_file(kind, folder, name))
    return resolve_base(kind, folder, content, (*seen, name))


def resolve_base(
    kind: str, folder: str, content: dict[str, Any], seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`content` laid over the part that its `base` names, if any; a suite also over another's `protocol`."""
    under = _with_bases(kind, folder, str(content["base"]), seen) if "base" in content else {}
    own = {key: value for key, value in content.items() if key != "base"}
    if kind == "suite" and "protocol" in own:
        how = _with_bases(kind, folder, str(own.pop("protocol")), seen)
        compared = {key: value for key, value in under.items() if key in COMPARED}
        under = {key: value for key, value in how.items() if key not in COMPARED} | compared
    return merge(under, own)


def merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Two plain mappings, the second on top, mappings merged key by key."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def as_mapping(kind: str, value: object) -> dict[str, Any]:
    """`value` if it is a mapping; else one clear line."""
    if not isinstance(value, dict):
        raise UsageError(f"{kind}: expected a mapping, found {value!r}")
    return {str(key): inner for key, inner in value.items()}


def damaged(path: Path, error: Exception) -> RunError:
    """The one line for a file that a run wrote and that cannot be read any more."""
    return RunError(f"{path} is damaged: {' '.join(str(error).split())}")

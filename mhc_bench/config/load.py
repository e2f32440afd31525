"""From a suite's name and a command line's overrides to the resolved runs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mhc_bench.config.check import check_data, check_protocol, check_suite
from mhc_bench.config.identity import PROTOCOL_FIELDS, RUN_FIELDS, cost_id, protocol_fields, protocol_id
from mhc_bench.config.parts import (
    GROUPS,
    as_mapping,
    damaged,
    merge,
    part_names,
    read_part,
    read_variant,
    read_yaml,
    resolve_base,
    variant_names,
)
from mhc_bench.config.schema import DATA_KINDS, DataConfig, Protocol, RunConfig, SuiteConfig
from mhc_bench.config.typed import plain, typed, typed_data
from mhc_bench.errors import UsageError, choose
from mhc_bench.files import write_text

RUN_CONFIG_FILE = "config.yaml"


def load_suite(name: str, overrides: Iterable[str] = ()) -> SuiteConfig:
    """A suite by shipped name or `.yaml` path, with dotlist overrides, resolved and checked.

    Raises:
        UsageError: unknown suite, part, key or value; a value that makes no sense.
    """
    content = {"name": Path(name).stem, **read_part("suite", "suites", name)}
    chosen, rest = _chosen_parts(overrides)
    selected, rest = _selected_variants(rest)
    over = parse_overrides(rest)
    for field, folder in GROUPS.items():
        content[field] = _part(field, folder, chosen.get(field, content.get(field, {})))
    content["variants"] = _variants(content.get("variants", []), selected, over.pop("variants", {}))
    content["arms"] = _arms(content.get("arms", {}), over.pop("arms", {}))
    _check_kind(content["data"], over.get("data"))
    content = merge(content, over)
    content["data"] = _from_home(content["data"])
    suite = typed(SuiteConfig, content, f"suite {name}")
    check_suite(suite)
    return suite


def load_data(name: str, overrides: Iterable[str] = ()) -> DataConfig:
    """A source of tokens by shipped name or `.yaml` path, with overrides of its own fields.

    Raises:
        UsageError: unknown source, key or value; a value that makes no sense.
    """
    content = _from_home(merge(read_part("data", "data", name), parse_overrides(overrides)))
    data = typed_data(content, f"data {name}")
    check_data(data)
    return data


def _check_kind(data: dict[str, Any], over: object) -> None:
    """An override of `data.kind` alone would mix the fields of two kinds."""
    asked = over.get("kind") if isinstance(over, dict) else None
    if asked is None or data.get("kind") in (None, asked):
        return
    kind = choose("data kind", str(asked), DATA_KINDS)
    named = [name for name in part_names("data") if read_part("data", "data", name)["kind"] == kind]
    raise UsageError(
        f"data.kind={kind}: this suite's data is of kind {data['kind']}: expected a source by name, "
        f"whose fields can then be changed: data={' or data='.join(named)}, or data=FILE.yaml"
    )


def _from_home(data: Any) -> Any:
    """A data configuration with `~` for the home folder: neither records nor ids shall know whose it is."""
    if not isinstance(data, dict):
        return data
    home = Path.home()
    places = {
        name: Path("~") / Path(data[name]).relative_to(home)
        for name in ("path", "source", "tokenizer")
        if isinstance(data.get(name), str) and Path(data[name]).is_relative_to(home)
    }
    return data | {name: place.as_posix() for name, place in places.items()}


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`key=value` strings (OmegaConf dotlist) as one nested mapping.

    Raises:
        UsageError: an item without `=`, or a value that is not YAML.
    """
    items = list(overrides)
    for item in items:
        if "=" not in item or item.startswith(("=", ".")):
            raise UsageError(f"override {item!r}: expected key=value, such as training.steps=100")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist(items))
    except yaml.YAMLError:
        raise UsageError(
            f"overrides {' '.join(items)}: a value that is not YAML: expected key=value, such as "
            "variants=[baseline,mhc] (is a bracket or a quote not closed, or a space missing after a colon?)"
        ) from None
    except OmegaConfBaseException as error:
        raise UsageError(f"overrides {' '.join(items)}: {str(error).splitlines()[0]}") from None
    except (TypeError, ValueError) as error:  # OmegaConf's own of a field of a list, YAML's of a date
        raise UsageError(
            f"overrides {' '.join(items)}: {str(error).splitlines()[0]}: expected each setting once, and "
            "a list as a whole, such as seeds=[0,1]"
        ) from None
    return as_mapping("overrides", content)


def _chosen_parts(overrides: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The parts that are selected by name (`hardware=gpu`), and the other overrides, which lie on top."""
    chosen: dict[str, str] = {}
    rest = []
    for item in overrides:
        field, _, name = item.partition("=")
        if field in GROUPS and name and not name.startswith(("{", "[")):
            chosen[field] = name
        else:
            rest.append(item)
    return chosen, rest


def _part(field: str, folder: str, value: object) -> dict[str, Any]:
    """One group of settings, by name or as a mapping."""
    if isinstance(value, str):
        return read_part(field, folder, value)
    return resolve_base(field, folder, as_mapping(field, value))


def _selected_variants(overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The selection `variants=[mhc]`, and the other overrides, which lie on top wherever they stand."""

    def selects(item: str) -> bool:
        field, _, value = item.partition("=")
        return field == "variants" and not value.lstrip().startswith("{")

    selections = [item for item in overrides if selects(item)]
    return parse_overrides(selections), [item for item in overrides if not selects(item)]


def _variants(listed: object, selected: dict[str, Any], over: object) -> dict[str, Any]:
    """Variant name -> its mapping, of those that are selected, else of all, with the changes in `over`."""
    known = _variant_mappings(listed)
    if "variants" in selected:
        known = _selection(selected["variants"], known)
    changes = as_mapping("variants", over)
    for name in changes:
        choose("variant of this suite", name, known)
    return merge(known, changes)


def _selection(wanted: object, known: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(wanted, (str, list)):
        shown = "null" if wanted is None else repr(wanted)
        raise UsageError(f"variants is {shown}: expected a list of names, such as variants=[baseline,mhc]")
    names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
    return _each_once(_pick_variant(name, known) for name in names)


def _variant_mappings(listed: object) -> dict[str, Any]:
    if isinstance(listed, list):
        return _each_once(_pick_variant(str(name), {}) for name in listed)
    return {
        name: resolve_base("variant", "variants", as_mapping(f"variant {name}", value))
        for name, value in as_mapping("variants", listed).items()
    }


def _each_once(picked: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in (item for each in picked for item in each.items()):
        if name in found:
            raise UsageError(f"variants: {name!r} is listed twice: expected each variant once")
        found[name] = value
    return found


def _pick_variant(name: str, known: dict[str, Any]) -> dict[str, Any]:
    if name in known:
        return {name: known[name]}
    if ":" in name:
        return {name.rpartition(":")[2]: {"connection": name}}
    choose("variant", name, {*known, *variant_names()})
    return {name: read_variant(name)}


def _arms(arms: object, chosen: object) -> dict[str, Any]:
    known = as_mapping("arms", arms)
    if chosen == {}:
        return known
    if isinstance(chosen, dict):
        raise UsageError(
            f"arms.{next(iter(chosen))}: an arm's fields stand in the suite's file; expected arms=[NAME]"
        )
    names = [str(name) for name in chosen] if isinstance(chosen, list) else [str(chosen)]
    return {choose("arm", name, known): known[name] for name in names}


def run_configs(suite: SuiteConfig) -> list[RunConfig]:
    """All runs of a suite: arms, then seeds, then variants, so that a pair is finished early."""
    return [
        _run(shared, suite, variant, seed)
        for shared in (_shared(suite, arm) for arm in suite.arms or [""])
        for seed in suite.seeds
        for variant in suite.variants
    ]


def _shared(suite: SuiteConfig, arm: str) -> RunConfig:
    """What all runs of one arm share, resolved and checked; variant and seed are to be filled in."""
    protocol: Protocol = suite
    if changes := suite.arms.get(arm):
        protocol = typed(Protocol, merge(protocol_fields(suite), changes), f"suite {suite.name}, arm {arm}")
    own = {name: getattr(protocol, name) for name in PROTOCOL_FIELDS}
    run = RunConfig(**own, suite=suite.name, arm=arm, hardware=suite.hardware, logging=suite.logging)
    check_protocol(run, run.hardware)
    return dataclasses.replace(run, protocol_id=protocol_id(run), cost_id=cost_id(run, run.hardware))


def _run(shared: RunConfig, suite: SuiteConfig, variant: str, seed: int) -> RunConfig:
    own = dataclasses.replace(shared, variant_name=variant, variant=suite.variants[variant], seed=seed)
    return copy.deepcopy(own)  # no two runs share a part that one could change


def run_folder(root: Path, run: RunConfig) -> Path:
    """Where a run lives: `<root>/<suite>-<protocol id>/<variant>/seed<k>`."""
    return root / f"{run.suite}-{run.protocol_id}" / run.variant_name / f"seed{run.seed}"


def save_run_config(run: RunConfig, folder: Path) -> Path:
    """Write the resolved configuration of a run."""
    path = folder / RUN_CONFIG_FILE
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(plain(run))))
    return path


def load_run_config(folder: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        UsageError: `folder` is no run folder.
        RunError: its file is damaged, or its ids do not belong to its content.
    """
    path = folder / RUN_CONFIG_FILE
    if not path.is_file():
        raise UsageError(f"{folder} is not a run folder: it has no {RUN_CONFIG_FILE}")
    try:
        run = typed(RunConfig, read_yaml(path), str(path))
    except UsageError as error:
        raise damaged(path, error) from None
    if run.protocol_id != protocol_id(run):
        raise damaged(path, ValueError(f"protocol id {run.protocol_id} expected {protocol_id(run)}"))
    return run


def check_same_run(run: RunConfig, folder: Path) -> None:
    """Refuse a folder that belongs to another run.

    Raises:
        UsageError: naming the field that differs.
    """
    if not (folder / RUN_CONFIG_FILE).exists():
        return
    there = load_run_config(folder)
    for field in RUN_FIELDS:
        ours, theirs = getattr(run, field), getattr(there, field)
        chosen_yet = field != "tuned" or ours is not None
        if ours != theirs and chosen_yet:
            raise UsageError(f"{folder} holds another run: its {field} is {theirs!r}, expected {ours!r}")

"""`mhc-bench describe`: a suite, a variant or a record in detail, as text or JSON."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mhc_bench.config import RunConfig, load_suite, part_names, plain, run_configs
from mhc_bench.config.load import parse_overrides
from mhc_bench.config.parts import read_variant, variant_names
from mhc_bench.errors import UsageError, choose

BACKBONE_OF_VARIANTS = "smoke"
"""The suite whose model a variant is described on; `model=` names another."""
BASELINE = "baseline"
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


def show(what: str, overrides: list[str], as_json: bool) -> int:
    """Print the description of a suite, a variant or a record."""
    content = describe(what, overrides)
    if as_json:
        print(json.dumps(content, indent=1))
        return 0
    if about := content.pop("about", ""):
        print(f"{about}\n")
    print(OmegaConf.to_yaml(OmegaConf.create(content)).rstrip())
    return 0


def describe(what: str, overrides: list[str]) -> dict[str, Any]:
    """The description as plain values.

    Raises:
        UsageError: nothing is called so.
    """
    if what.endswith(".json"):
        return describe_record(Path(what))
    if what in part_names("suites") or what.endswith(".yaml"):
        return describe_suite(what, overrides)
    choose("suite or variant", what, {*part_names("suites"), *variant_names()})
    return describe_variant(what, overrides)


def describe_suite(name: str, overrides: list[str]) -> dict[str, Any]:
    """A suite with its protocol ids and the size of each variant; with `variant=`, of that one alone."""
    chosen = [item.partition("=")[2] for item in overrides if item.startswith("variant=")]
    rest = [item for item in overrides if not item.startswith("variant=")]
    suite = load_suite(name, [*rest, *(f"variants=[{variant}]" for variant in chosen)])
    runs = run_configs(suite)
    sizes = _sizes(suite.name, runs)
    content: dict[str, Any] = {
        "suite": suite.name,
        "description": suite.description,
        "protocols": {run.arm or suite.name: run.protocol_id for run in runs},
        "tokens_per_run": suite.training.batch_tokens * suite.training.steps,
        "configuration": plain(suite),
    }
    return content | (next(iter(sizes.values())) if chosen else {"variants": sizes})


def _sizes(name: str, runs: list[Any]) -> dict[str, Any]:
    from mhc_bench.suite.preflight import count

    return {
        variant: {"parameters": counts.parameters, "flops_per_token": counts.flops_per_token}
        for (_, variant), counts in count(runs).items()
    }


def describe_variant(name: str, overrides: list[str]) -> dict[str, Any]:
    """A variant: formula, source, options with defaults, and what it adds to each sublayer of a backbone.

    Overrides are those of the suite whose backbone it is put on, and `options.<name>=` of its own options.

    Raises:
        UsageError: an override that is neither, or a value out of range.
    """
    from mhc_bench.residual import resolve, variant_options

    part = read_variant(name)
    cls = resolve(str(part["connection"]))
    about = inspect.cleandoc(cls.__doc__ or "")
    own = parse_overrides(item for item in overrides if item.startswith("options.")).get("options", {})
    rest = [item for item in overrides if not item.startswith("options.")]
    for item in rest:
        if item.partition("=")[0] in variant_options(cls):
            raise UsageError(f"override {item!r}: a variant's option is given as options.{item}")
    names = dict.fromkeys((name, BASELINE))
    suite = load_suite(BACKBONE_OF_VARIANTS, [*rest, f"variants=[{','.join(names)}]"])
    suite.variants[name].options |= own
    return {
        "variant": name,
        "connection": part["connection"],
        "about": about,
        "source": [f"arXiv {number}" for number in dict.fromkeys(ARXIV.findall(about))],
        "options": variant_options(cls) | suite.variants[name].options,
        **_on_backbone(name, run_configs(suite)),
    }


def _on_backbone(name: str, runs: list[RunConfig]) -> dict[str, Any]:
    """A variant's size on the backbone of `runs`, and its overhead over the baseline, which is among them."""
    from mhc_bench.bench.sublayer import sublayer_overhead
    from mhc_bench.model import count_parameters, flops_per_token, residual_connections
    from mhc_bench.suite.preflight import known_vocabulary
    from mhc_bench.training.build import build_for

    vocabulary = known_vocabulary(runs[0].data)
    models = {run.variant_name: build_for(run, vocabulary) for run in runs}
    model, training = models[name], runs[0].training
    overhead = sublayer_overhead(model, models[BASELINE], training.sequence_length, training.precision)
    return {
        "on_model": {
            "family": runs[0].model.family,
            "sublayers": len(residual_connections(model)),
            "width": int(model.config.hidden_size),
            "sequence_length": training.sequence_length,
            "precision": training.precision,
            "parameters": count_parameters(model),
            "flops_per_token": flops_per_token(model, training.sequence_length),
        },
        "per_sublayer": overhead,
    }


def describe_record(path: Path) -> dict[str, Any]:
    """What a record says of itself, without its curves."""
    from mhc_bench.evidence.store import given_record

    content = given_record(path).model_dump(mode="json")
    mechanism = content.get("mechanism")
    if mechanism:
        mechanism.pop("curves")
    return content

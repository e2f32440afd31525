"""`mhc-bench check`: the conformance kit on a variant by name, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from mhc_bench.config import part_names
from mhc_bench.config.load import parse_overrides
from mhc_bench.config.parts import as_mapping, read_part, read_variant, variant_names
from mhc_bench.errors import UsageError, choose


def show(variant: str, overrides: list[str], backbone: str, only: Sequence[str], as_json: bool) -> int:
    """Check a variant and print what was found: 0 where it conforms, 1 otherwise.

    Raises:
        UsageError: an unknown variant, option, backbone or check.
    """
    import torch

    from mhc_bench.kit import check_variant

    connection, options = connection_of(variant)
    torch.set_num_threads(1)  # the models are tiny
    report = check_variant(
        connection, options | parse_overrides(overrides), backbone=backbone_named(backbone), only=only
    )
    if as_json:
        print(report.to_json())
    else:
        console = Console()
        console.print(report.to_table())
        console.print(report.summary(), highlight=False)
    return 1 if report.failures else 0


def connection_of(variant: str) -> tuple[str, dict[str, Any]]:
    """Connection and options of a variant: shipped, installed, a `.yaml` file, registered or `module:Class`.

    Raises:
        UsageError: naming the nearest variant.
    """
    from mhc_bench import residual

    if ":" in variant:
        return variant, {}
    if variant.endswith((".yaml", ".yml")):
        part = read_part("variant", "variants", variant)
    elif variant in variant_names():
        part = read_variant(variant)
    else:
        part = {"connection": choose("variant", variant, {*variant_names(), *residual.variant_names()})}
    if "connection" not in part:
        raise UsageError(f"{variant}: expected a connection, such as connection: mhc")
    return str(part["connection"]), as_mapping(f"options of {variant}", part.get("options", {}))


def backbone_named(name: str) -> Any:
    """A family's tiny model, or a model of `configs/models` at its own size.

    Raises:
        UsageError: naming the nearest of both.
    """
    from mhc_bench.kit import Backbone
    from mhc_bench.model import supported_families

    choose("backbone", name, {*supported_families(), *part_names("models")})
    if name in supported_families():
        return Backbone(name)
    part = read_part("model", "models", name)
    return Backbone(str(part["family"]), dict(part["backbone"]))

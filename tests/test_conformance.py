"""Every registered variant goes through the conformance kit; a new one is tested here without a line."""

from __future__ import annotations

from typing import Any

import pytest

from mhc_bench.kit import CHECKS, SLOW, Backbone, assert_conforms
from mhc_bench.model import supported_families
from mhc_bench.residual import variant_names

FAST = [check.name for check in CHECKS if check.name not in SLOW]
IN_FULL = ("baseline", "hc", "mhc")
"""Compiled and sharded by default; `tox -e kit` does so with all."""
FIELD: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in variant_names()),
    ("attnres", {"blocks": 2}),
    ("mhc", {"reduction": "learned", "additive_epsilon": 1e-6, "initialisation": "deepseek_v4"}),
]
OPTIONS: dict[str, dict[str, Any]] = {"mhc": {"streams": 3, "sinkhorn_iterations": 3}}
"""Fewer rounds: tracing takes longer with each."""
SLOW_CASES = [
    pytest.param(name, options, id=f"{name}{''.join(map(str, options.values()))}", marks=pytest.mark.kit)
    for name, options in FIELD
]


@pytest.mark.parametrize("check", FAST)
@pytest.mark.parametrize(
    ("variant", "options"), FIELD, ids=lambda value: value if isinstance(value, str) else "".join(value)
)
def test_every_variant_conforms(variant: str, options: dict[str, Any], check: str) -> None:
    assert_conforms(variant, check, options)


@pytest.mark.ranks
@pytest.mark.parametrize("check", sorted(SLOW))
@pytest.mark.parametrize("variant", IN_FULL)
def test_three_variants_conform_compiled_and_sharded(variant: str, check: str) -> None:
    assert_conforms(variant, check, OPTIONS.get(variant))


@pytest.mark.parametrize("check", sorted(SLOW))
@pytest.mark.parametrize(("variant", "options"), SLOW_CASES)
def test_every_variant_conforms_compiled_and_sharded(
    variant: str, options: dict[str, Any], check: str
) -> None:
    assert_conforms(variant, check, options)


@pytest.mark.kit
@pytest.mark.parametrize("check", ["start", "shared-weights", "future", "cache", "recompute", "saving"])
@pytest.mark.parametrize("family", [name for name in supported_families() if name != "llama"])
@pytest.mark.parametrize("variant", variant_names())
def test_every_variant_conforms_on_every_family(variant: str, family: str, check: str) -> None:
    assert_conforms(variant, check, backbone=Backbone(family))

"""`mhc-bench describe VARIANT`: what it is, and its overhead per sublayer against independent counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mhc_bench import cli
from mhc_bench.bench.traffic import DIRECTIONS, LEVELS, sublayer_traffic
from mhc_bench.config import part_names
from mhc_bench.suite.describe import describe_variant

WIDTH, SUBLAYERS = 32, 4  # of the smoke suite's model
WITHOUT_A_PAPER = {"baseline", "baseline-aa", "cheap-skip", "mhc-identity", "mhc-static"}


def per_sublayer(name: str, *overrides: str) -> dict[str, Any]:
    content: dict[str, Any] = describe_variant(name, list(overrides))["per_sublayer"]
    return content


def test_it_tells_formula_source_options_and_overhead_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "mhc-lite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "H_res" in told["about"] and "softmax" in told["about"]
    assert told["source"][0] == "arXiv 2601.05732"
    assert told["options"]["identity_margin"] == 8.0
    assert told["on_model"]["sublayers"] == SUBLAYERS and told["on_model"]["width"] == WIDTH
    assert told["per_sublayer"]["parameters"] == (24 + 8) * (4 * WIDTH + 1) + 3


def test_it_prints_the_same_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "hc"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Dynamic Hyper-Connections with tanh, arXiv 2409.19606")
    for word in ("scale: 0.01", "matrices:", "forward_units: 34", "- arXiv 2409.19606"):
        assert word in text


def test_operations_are_counted_by_hand() -> None:
    """mHC: 24 rows of 4 C, forward once and backward twice, two operations each; applied with 24 entries."""
    flops = per_sublayer("mhc")["flops_per_token"]
    assert flops["matrices"] == 6 * 24 * 4 * WIDTH
    assert flops["mixing"] == 6 * 24 * WIDTH
    plain = per_sublayer("baseline")["flops_per_token"]
    assert (plain["matrices"], plain["mixing"]) == (0, 0)
    assert plain["of_the_plain_model"] == flops["of_the_plain_model"] > 0


@pytest.mark.parametrize("n", [2, 4])
def test_traffic_is_the_io_models(n: int) -> None:
    traffic = per_sublayer("mhc", f"options.streams={n}")["traffic"]
    assert list(traffic) == ["plain", *LEVELS]
    for level in LEVELS:
        for direction in DIRECTIONS:
            assert traffic[level][f"{direction}_units"] == sublayer_traffic(n, direction, level).units
    assert traffic["plain"] == {"forward_units": 3, "backward_units": 3, "bytes": 6 * WIDTH * 4}


def test_the_backbone_and_its_precision_can_be_named() -> None:
    wide = per_sublayer("mhc", "model=llama-d128-l6", "training.precision=bf16")
    assert wide["parameters"] == 24 * (4 * 128 + 1) + 3
    assert wide["traffic"]["plain"]["bytes"] == 6 * 128 * 2


def test_a_kind_that_the_io_model_does_not_cover_says_so() -> None:
    assert per_sublayer("attnres")["traffic"] is None


def test_every_variant_can_be_described() -> None:
    for name in part_names("variants"):
        told = describe_variant(name, ["model.backbone.num_hidden_layers=1"])
        assert told["about"] and told["per_sublayer"]["parameters"] >= 0
        assert told["source"] or name in WITHOUT_A_PAPER

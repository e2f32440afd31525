"""The ablation suites: each asks its own question, of a model that can be built, on protocols that exist."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from residual_toys import WIDTH, connection
from tiny_runs import tiny_run, write_corpus

from mhc_bench import cli
from mhc_bench.config import SuiteConfig, WorldConfig, load_suite, part_names, protocol_id, run_configs
from mhc_bench.config.parts import read_part
from mhc_bench.errors import UsageError
from mhc_bench.ops import reference
from mhc_bench.residual import build
from mhc_bench.suite.preflight import count, preflight
from mhc_bench.training import fit

ABLATIONS = [
    name for name in part_names("suites") if name.startswith("ablation-") and not name.endswith("-gpu")
]
SMALL = ["model.backbone.num_hidden_layers=1", "data.validation_tokens=2048"]
STUDIES = {
    "learning-rate": {"learning_rate"},
    "depth": {"num_hidden_layers"},
    "width": {"hidden_size", "intermediate_size"},
    "tokens": {"steps"},
}
"""Ablation with arms -> the fields in which they differ."""


@functools.cache
def loaded(name: str, *overrides: str) -> SuiteConfig:
    return load_suite(name, overrides)


def test_all_ten_questions_have_a_suite_at_both_scales() -> None:
    assert len(ABLATIONS) == 9 + 3  # the ninth asks for depth, size and tokens
    numbers = [loaded(name).description.partition(":")[0] for name in ABLATIONS]
    expected = {f"ablation {n}" for n in (*range(1, 9), "9a", "9b", "9c", 10)}
    assert set(numbers) == expected
    assert {f"{name}-gpu" for name in ABLATIONS} <= set(part_names("suites"))


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_passes_preflight(name: str) -> None:
    """On the meta device; an arm's own depth stays, every other model has one layer."""
    counts = preflight(run_configs(loaded(name, *SMALL, "seeds=[0]")))
    assert {variant for _, variant in counts} == set(loaded(name).variants)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_on_one_gpu_compares_the_same_on_the_protocol_of_h200_quick(name: str) -> None:
    small, large = loaded(name), loaded(f"{name}-gpu")
    assert (large.variants, list(large.arms)) == (small.variants, list(small.arms))
    assert large.description == f"{small.description}; at the scale of h200-quick, on one GPU"
    assert protocol_id(large) == protocol_id(loaded("h200-quick"))
    assert protocol_id(small) == protocol_id(loaded("quick"))
    assert large.hardware == loaded("h200-quick").hardware
    count(
        [run for run in run_configs(loaded(f"{name}-gpu", *SMALL, "seeds=[0]")) if run.variant_name == "mhc"]
    )


@pytest.mark.parametrize("name", ABLATIONS)
def test_arms_differ_in_what_the_ablation_asks_and_one_of_them_is_the_protocol_itself(name: str) -> None:
    for scale in ("", "-gpu"):
        arms = loaded(name + scale).arms
        assert {leaf for arm in arms.values() for leaf in leaves(arm)} == STUDIES.get(
            name.removeprefix("ablation-"), set()
        )
    ids = {run.protocol_id for run in run_configs(loaded(name, "seeds=[0]"))}
    assert protocol_id(loaded("quick")) in ids and len(ids) == max(1, len(loaded(name).arms))


def leaves(content: dict[str, Any]) -> set[str]:
    inner = [leaves(value) if isinstance(value, dict) else {key} for key, value in content.items()]
    return set().union(*inner)


def test_the_component_ablation_has_the_papers_rows_and_the_one_that_it_lacks() -> None:
    suite = loaded("ablation-components")
    learned = {
        frozenset(str(variant.options["components"]).split("+"))
        for variant in suite.variants.values()
        if variant.connection == "hc-components"
    }
    table = [{"res"}, {"res", "pre"}, {"res", "pre", "post"}]
    assert learned == {*map(frozenset, table), frozenset({"pre", "post"})}
    assert "baseline" in suite.variants


def test_plan_and_describe_tell_an_ablation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["ablation-learning-rate", *SMALL, "variants=[baseline]", "--json"]
    assert cli.main(["plan", *words, "--runs", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["arm"] for row in rows] == ["lr-low", "lr-own", "lr-high"]
    assert cli.main(["describe", *words]) == 0
    assert set(json.loads(capsys.readouterr().out)["protocols"]) == {"lr-low", "lr-own", "lr-high"}


def test_a_protocol_taken_over_replaces_everything_but_what_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: ablation-depth\nprotocol: smoke\ntraining: {steps: 7}\n")
    content = read_part("suite", "suites", str(path))
    smoke = read_part("suite", "suites", "smoke")
    assert content["variants"] == load_part("ablation-depth")["variants"] != smoke["variants"]
    assert content["arms"] == load_part("ablation-depth")["arms"]
    assert content["training"] == {**smoke["training"], "steps": 7}
    assert content["seeds"] == smoke["seeds"]
    assert "note" not in content  # quick's, by which ablation-depth explains quick's learning rate


def load_part(name: str) -> dict[str, Any]:
    return read_part("suite", "suites", name)


def test_an_unknown_protocol_is_refused_with_the_nearest_suite(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("protocol: quik\nvariants: [baseline]\n")
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("connection_name", "options"), [("hc", {"activation": "identity"}), ("mhc", {"map_precision": "bf16"})]
)
def test_an_ablated_connection_trains(connection_name: str, options: dict[str, Any], tmp_path: Path) -> None:
    run = tiny_run(write_corpus(tmp_path / "corpus"), connection_name, steps=3)
    plain = fit(run, tmp_path / "plain", quiet=True)
    changed = tiny_run(tmp_path / "corpus", connection_name, steps=3, variant__options=options)
    ablated = fit(changed, tmp_path / "ablated", quiet=True)
    assert math.isfinite(ablated.validation[-1]["loss"])
    assert ablated.validation[-1]["loss"] != plain.validation[-1]["loss"]
    assert ablated.shared_weight_digest == plain.shared_weight_digest


def test_hc_without_tanh_adds_its_projections_as_they_are() -> None:
    ours = connection("hc", activation="identity").requires_grad_(False)
    stream = torch.randn(2, 3, 4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pre, post, res = ours.maps(stream)
    for place in [(0, 0), (1, 2)]:
        x = stream[place]
        raw = [
            [row @ (each / (each.square().mean() + ours.epsilon).sqrt()) for each in x] for row in ours.weight
        ]
        for i in range(4):
            assert float(pre[place][i]) == pytest.approx(
                float(ours.scale_mix * raw[0][i] + ours.static_pre[i])
            )
            assert float(post[place][i]) == pytest.approx(
                float(ours.scale_write * raw[1][i] + ours.static_post[i])
            )
            for out in range(4):
                assert float(res[place][out, i]) == pytest.approx(
                    float(ours.scale_mix * raw[2 + out][i] + ours.static_res[out, i])
                )


@pytest.mark.parametrize("order", ["columns_rows", "rows_columns"])
def test_bf16_maps_are_bf16_numbers_near_the_fp32_ones(order: str) -> None:
    exact = connection("mhc", sinkhorn_order=order).float()
    rounded = connection("mhc", sinkhorn_order=order, map_precision="bf16").float()
    stream = torch.randn(2, 3, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(rounded.maps(stream), exact.maps(stream), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, mine.bfloat16().float()) and not torch.equal(mine, other)
        torch.testing.assert_close(mine, other, rtol=0.1, atol=0.03)
    sums = rounded.maps(stream).res.sum(-1 if order == "columns_rows" else -2)
    assert 1e-4 < (sums - 1).abs().max() < 0.03


@pytest.mark.parametrize("offset", [0.0, 2.0, 8.0])
def test_the_diagonal_offset_moves_the_start_of_h_res_alone(offset: float) -> None:
    plain = build("mhc", width=WIDTH, depth=4, index=1)
    moved = build("mhc", width=WIDTH, depth=4, index=1, diagonal_offset=offset)
    for (name, ours), (_, theirs) in zip(plain.named_parameters(), moved.named_parameters(), strict=True):
        assert torch.equal(ours, theirs) or (name == "bias_res" and offset != 2.0)
    start = reference.sinkhorn(dict(moved.named_parameters())["bias_res"].view(4, 4), 20)
    share = math.exp(offset) / (math.exp(offset) + 3)
    assert torch.allclose(start.diagonal(), torch.full((4,), share))


def test_a_field_of_a_world_stays_the_embedded_one() -> None:
    assert isinstance(loaded("field").data, WorldConfig)
    assert protocol_id(loaded("field")) == protocol_id(loaded("quick"))
    connections = {variant.connection for variant in loaded("field").variants.values()}
    parts = {name: read_part("variant", "variants", name) for name in part_names("variants")}
    shipped = {name: part["connection"] for name, part in parts.items() if "perturbation" not in part}
    assert connections == set(shipped.values()) and set(loaded("field").variants) == set(shipped)

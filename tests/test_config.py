"""Composition, overrides, checks and ids of configurations, over every file that ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mhc_bench.config import (
    GROUPS,
    TrainingConfig,
    check_same_run,
    load_run_config,
    load_suite,
    part_names,
    plain,
    protocol_id,
    run_configs,
    save_run_config,
)
from mhc_bench.config.schema import ADDED_LATER, TextConfig
from mhc_bench.errors import RunError, UsageError
from mhc_bench.resources import configs_dir
from mhc_bench.suite import listing

SUITES = part_names("suites")


@pytest.mark.parametrize("name", SUITES)
def test_every_shipped_suite_loads_and_its_runs_differ_only_in_the_variant(name: str) -> None:
    runs = run_configs(load_suite(name))
    assert runs
    by_pair: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in runs:
        by_pair.setdefault((run.arm, run.seed), []).append(plain(run))
    for group in by_pair.values():
        names = [run.pop("variant_name") for run in group]
        variants = [run.pop("variant") for run in group]
        assert len(set(names)) == len(names) == len({str(variant) for variant in variants})
        assert all(run == group[0] for run in group)


@pytest.mark.parametrize(("field", "folder"), GROUPS.items())
def test_every_shipped_part_fits_into_a_suite(field: str, folder: str) -> None:
    assert part_names(folder), f"configs/{folder} is empty"
    for name in part_names(folder):
        overrides = [f"{field}={name}"]
        if field == "optimizer":
            overrides.append("optimizer.learning_rate=0.001")
        if field == "hardware":
            overrides.append("training.batch_tokens=1024")  # a row for each of two nodes' GPUs
        suite = load_suite("smoke", overrides)
        assert getattr(suite, field) is not None


def test_no_shipped_file_is_outside_a_known_group() -> None:
    known = {*GROUPS.values(), "suites", "variants"}
    assert {path.parent.name for path in configs_dir().rglob("*.yaml")} <= known


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainnig.steps=3"], "did you mean 'training'"),
        (["training.stpes=3"], "did you mean 'steps'"),
        (["training.steps=many"], "training.steps"),
        (["training.steps=0"], "training.steps is 0: expected 1 to 2147483647"),
        (["training.batch_tokens=100"], "a multiple of training.sequence_length"),
        (["training.precision=fp8"], "precision"),
        (["optimizer.learning_rate=0"], "a positive number"),
        (["optimizer.betas=[0.9]"], "two numbers"),
        (["optimizer.schedule.shape=cosin"], "shape"),
        (["model=llama-d32-l3"], "did you mean 'llama-d32-l2'"),
        (["hardware=cpuu"], "did you mean 'cpu'"),
        (["hardware.devices=2"], "hardware.sharding=fsdp"),
        (["hardware.sharding=fsdp", "hardware.devices=3"], "share equally"),
        (["variants=[baseline,mch]"], "did you mean 'mhc'"),
        (["variants.mch.options.streams=2"], "did you mean 'mhc'"),
        (["variants=[]"], "at least one variant"),
        (["seeds=[]"], "at least one seed"),
        (["seeds=[1,1]"], "each seed once"),
        (["seeds=[-1]"], "whole numbers from 0"),
        (["arms=[hot]"], "unknown arm"),
        (
            ["arms.hot.training.steps=3"],
            "arms.hot: an arm's fields stand in the suite's file; expected arms=",
        ),
        (["data.kind=wrld"], "did you mean 'world'"),
        (["data.kind=text"], "data.kind=text: this suite's data is of kind world: expected a source by name"),
        (["data={kind: shards}"], "data=fineweb-edu or data=fineweb-edu-gpt2"),
        (["steps"], "expected key=value"),
        (["evaluation.limit=0"], "evaluation.limit"),
        (["hardware=cpuu", "hardware.threads=2"], "did you mean 'cpu'"),
        (["hardware.operations=triton"], "hardware.operations is triton: expected auto, eager or reference"),
        (["hardware=gpu", "hardware.operations=compiled"], "hardware.operations is compiled: expected auto"),
        (["logging.milestones=[0.5,1e9]"], "logging.milestones is 1000000000.0: expected a fraction"),
    ],
)
def test_bad_overrides_get_one_line_that_names_them(overrides: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_configs(load_suite("smoke", overrides))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_kind_of_data_can_be_given_to_a_suite_that_has_none(tmp_path: Path) -> None:
    suite = tmp_path / "own.yaml"
    suite.write_text(
        "model: llama-d64-l4\noptimizer: {base: adamw, learning_rate: 0.1}\nhardware: cpu\n"
        "variants: [baseline]\nseeds: [0]\ntraining: {sequence_length: 16, batch_tokens: 16, steps: 1}\n"
    )
    chosen = load_suite(str(suite), ["data.kind=text", "data.path=/some/corpus"]).data
    assert isinstance(chosen, TextConfig) and chosen.path == "/some/corpus"


def test_suites_are_listed_with_the_descriptions_that_they_resolve_to() -> None:
    listed = {row["suite"]: row["description"] for row in listing.suites()}
    assert listed == {name: load_suite(name).description for name in part_names("suites")}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_selected_part_and_its_changed_fields_go_together_in_any_order(reverse: bool) -> None:
    overrides = ["hardware=fsdp-multinode", "hardware.nodes=8"]
    hardware = load_suite("paper-27b", overrides[::-1] if reverse else overrides).hardware
    assert (hardware.sharding, hardware.devices, hardware.nodes) == ("hsdp", 8, 8)


def test_an_unknown_suite_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        load_suite("quik")


def test_a_suite_file_of_ones_own_may_build_on_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: smoke\nvariants: {wide: {base: mhc, options: {streams: 2}}}\nseeds: [7]\n")
    (run,) = run_configs(load_suite(str(path)))
    assert (run.suite, run.variant_name, run.variant.connection, run.seed) == ("mine", "wide", "mhc", 7)
    assert run.variant.options["streams"] == 2


def test_a_class_named_as_module_and_class_is_a_variant() -> None:
    suite = load_suite("smoke", ["variants=[baseline,some.package:GatedSkip]"])
    assert suite.variants["GatedSkip"].connection == "some.package:GatedSkip"


def test_arms_differ_in_their_named_fields_only_and_have_ids_of_their_own() -> None:
    suite = load_suite("stress")
    first, second, *_ = [run for run in run_configs(suite) if run.seed == 0 and run.variant_name == "hc"]
    assert first.protocol_id != second.protocol_id
    a, b = plain(first), plain(second)
    for content in (a, b):
        for key in ("arm", "protocol_id", "cost_id"):
            content.pop(key)
        content["optimizer"].pop("learning_rate")
        content["optimizer"].pop("clip")
    assert a == b


def test_the_protocol_id_ignores_hardware_seeds_names_and_logging_but_no_field_of_the_protocol() -> None:
    suite = load_suite("smoke")
    same = load_suite("smoke", ["hardware=cpu-fsdp", "seeds=[5]", "variants=[hc]", "logging.every=7"])
    assert protocol_id(suite) == protocol_id(same)
    for change in ("training.steps=31", "optimizer.clip=2.0", "model=llama-d64-l4", "data.world_seed=1"):
        assert protocol_id(load_suite("smoke", [change])) != protocol_id(suite)


def test_a_field_added_later_changes_no_id_until_it_is_used() -> None:
    @dataclasses.dataclass
    class Grown(TrainingConfig):
        novelty: int = dataclasses.field(default=3, metadata=ADDED_LATER)

    suite = load_suite("smoke")
    grown = dataclasses.replace(suite, training=Grown(**dataclasses.asdict(suite.training)))
    assert protocol_id(grown) == protocol_id(suite)
    used = dataclasses.replace(suite, training=Grown(**dataclasses.asdict(suite.training), novelty=4))
    assert protocol_id(used) != protocol_id(suite)


def test_the_cost_id_tells_hardware_apart() -> None:
    cpu, ranks = (run_configs(load_suite("smoke", [f"hardware={h}"]))[0] for h in ("cpu", "cpu-fsdp"))
    assert cpu.protocol_id == ranks.protocol_id
    assert cpu.cost_id != ranks.cost_id


def test_a_saved_run_reads_back_equal_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    run = run_configs(load_suite("stdlib"))[1]
    path = save_run_config(run, tmp_path)
    assert load_run_config(tmp_path) == run
    path.write_text(path.read_text().replace("steps: ", "steps: 1"))
    with pytest.raises(RunError, match="damaged"):
        load_run_config(tmp_path)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run = run_configs(load_suite("smoke"))[0]
    save_run_config(run, tmp_path)
    check_same_run(run, tmp_path)
    with pytest.raises(UsageError, match="its seed is 0, expected 1"):
        check_same_run(dataclasses.replace(run, seed=1), tmp_path)


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model: [unclosed")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_suite(str(path))

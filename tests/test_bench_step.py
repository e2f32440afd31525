"""Steps of several variants measured in one process, and our training against a hand-written loop."""

from __future__ import annotations

import dataclasses
import gc
import json
from pathlib import Path

import evaluation_toy as toy
import pytest
import torch

from mhc_bench.bench import StepReport, measure_steps, run_bench_step
from mhc_bench.bench.activations import KeptActivations, kept_activations
from mhc_bench.bench.figures import draw_steps, write_figure
from mhc_bench.bench.floor import StepFloor, stream_count
from mhc_bench.bench.handloop import HandLoop
from mhc_bench.bench.overhead import affordable_chunks, chunk_steps, measure_overhead
from mhc_bench.bench.profiling import peak_step_bytes, profile_steps
from mhc_bench.bench.rates import measure_rates
from mhc_bench.bench.report import goal_lines
from mhc_bench.bench.step import floor_overhead
from mhc_bench.bench.subject import StepSubject, one_rank
from mhc_bench.bench.traffic import LEVELS
from mhc_bench.config import RunConfig, load_suite, part_names, protocol_id
from mhc_bench.data import open_source
from mhc_bench.errors import UsageError
from mhc_bench.evidence.gpus import bf16_flops, most_flops
from mhc_bench.model import shared_weight_digest
from mhc_bench.ops import choice
from mhc_bench.residual import build

VARIANTS = ("baseline", "hc", "mhc")
CPU = torch.device("cpu")


def configs() -> list[RunConfig]:
    return [toy.run_config(variant) for variant in VARIANTS]


@pytest.fixture(scope="module")
def report() -> StepReport:
    return measure_steps(configs(), steps=4, warmup=1)


def test_every_variant_is_measured_against_the_baseline_of_its_round(report: StepReport) -> None:
    assert [each.variant for each in report.variants] == list(VARIANTS)
    assert all(each.n == 4 for each in report.variants)
    base = report.variants[0]
    assert (base.ratio.median, base.ratio.low, base.ratio.high) == (1.0, 1.0, 1.0)
    assert base.tokens_per_second == pytest.approx(256 / base.quantiles.p50)


def test_every_variant_says_what_computed_its_operations_and_why(
    report: StepReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {each.operations for each in report.variants} == {"eager"}
    assert "one stream" in report.variants[0].operations_reason
    assert "too short to compile for" in report.variants[2].operations_reason
    monkeypatch.setattr(choice, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(choice, "kernels", lambda *_: None)
    monkeypatch.setattr(choice, "compiler", lambda: ["c++"])
    subject = StepSubject(toy.run_config("mhc"), open_source(toy.run_config().data), 1)
    assert subject.choice.operations == subject.config.hardware.operations == "compiled"


@pytest.mark.parametrize("suite", [name for name in part_names("suites") if name.startswith("bench-")])
def test_the_suites_for_a_gpu_measure_the_fused_kernels(suite: str) -> None:
    hardware = load_suite(suite).hardware
    assert (hardware.operations, hardware.compile) == ("triton", True)


@pytest.mark.parametrize("width", [1280, 1920, 2560])
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_steps_can_be_measured_at_each_width_of_the_paper(kind: str, width: int) -> None:
    suite = load_suite(f"bench-{kind}-2560", [f"model=bench-{kind}-{width}"])
    assert suite.model.backbone["hidden_size"] == width


def test_a_record_takes_the_step_time_as_it_is(report: StepReport) -> None:
    found = report.step_time("mhc")
    assert set(found) == {
        "ratio_to_baseline",
        "baseline_tokens_per_second",
        "tokens_per_second",
        "quantiles",
        "n",
    }
    assert found["baseline_tokens_per_second"] == report.variants[0].tokens_per_second
    assert set(found["quantiles"]) == {"p10", "p50", "p90"}


def test_wider_streams_hold_more_memory_and_state(report: StepReport) -> None:
    base, hc, mhc = report.variants
    assert base.peak_step_bytes < hc.peak_step_bytes
    assert base.state_bytes < hc.state_bytes < mhc.state_bytes


def test_the_baseline_is_found_wherever_it_stands() -> None:
    turned = measure_steps(configs()[::-1], steps=3, warmup=0)
    assert turned.baseline == "baseline"
    assert turned.variants[-1].ratio.median == 1.0


def test_a_subject_trains_as_a_hand_written_loop_on_the_stock_model_does() -> None:
    config = toy.run_config("baseline")
    source = open_source(config.data)
    subject, loop = StepSubject(config, source, 3), HandLoop(config, source)
    assert shared_weight_digest(subject.module.model) == loop.start_digest
    ours = [float(subject.step()) for _ in range(3)]
    loop.run(3)
    assert ours == pytest.approx([float(loss) for loss in loop.losses], abs=1e-5)
    assert ours[2] != ours[0]


def test_our_training_and_the_hand_written_loop_do_the_same_work() -> None:
    config = toy.run_config("mhc")
    found = measure_overhead(config, chunks=3, chunk=4)
    assert (found.chunks, found.chunk_steps) == (3, 4)
    assert found.ours_seconds > 0 and found.hand_seconds > 0
    assert found.ratio.low <= found.ratio.median <= found.ratio.high
    assert found.largest_loss_difference < 1e-4


def test_slow_steps_get_fewer_chunks_and_never_too_few() -> None:
    config = toy.run_config("baseline")
    size = chunk_steps(config)
    assert size % config.training.probe_every == size % config.logging.every == 0
    assert affordable_chunks(config, 1e-6) == 6
    assert affordable_chunks(config, 120 / (5 * size)) == 4
    assert affordable_chunks(config, 10.0) == 3


def test_other_protocols_seeds_and_repeated_variants_are_refused() -> None:
    base = toy.run_config("baseline")
    longer = dataclasses.replace(base.training, steps=9)
    other = dataclasses.replace(toy.run_config("hc"), training=longer)
    other = dataclasses.replace(other, protocol_id=protocol_id(other))
    with pytest.raises(UsageError, match="within one protocol_id"):
        measure_steps([base, other])
    with pytest.raises(UsageError, match="within one seed"):
        measure_steps([base, dataclasses.replace(toy.run_config("hc"), seed=1)])
    with pytest.raises(UsageError, match="each variant once"):
        measure_steps([base, base])
    with pytest.raises(UsageError, match="at least one variant"):
        measure_steps([])


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = toy.run_config("baseline")
    config.hardware.accelerator = "gpu"
    with pytest.raises(UsageError, match="no CUDA device here"):
        measure_steps([config])


def test_the_width_of_a_stream_is_read_off_the_connection() -> None:
    for name, streams in (("baseline", 1), ("hc", 4), ("mhc", 4)):
        assert stream_count(build(name, width=8, depth=2, index=0), 8) == streams
    assert stream_count(build("mhc", width=8, depth=2, index=0, streams=2), 8) == 2


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def hold_two_then_one() -> None:
        first = torch.ones(2**18)
        second = first + 1
        del first, second
        torch.ones(2**18)

    assert peak_step_bytes(hold_two_then_one, CPU) == pytest.approx(2 * 2**20, rel=0.02)


def test_the_profile_counts_operators_per_step() -> None:
    left = torch.ones(8, 8)
    found = profile_steps(lambda: (left @ left) @ left, CPU, steps=3)
    calls = {operator.name: operator.calls for operator in found.operators}
    assert calls["aten::mm"] == 2
    assert found.operators[0].seconds == max(operator.seconds for operator in found.operators)


def test_no_garbage_is_collected_while_operators_are_profiled() -> None:
    enabled: list[bool] = []
    profile_steps(lambda: enabled.append(gc.isenabled()), CPU, steps=2)
    assert enabled == [False, False] and gc.isenabled()


def test_measured_rates_are_those_of_a_computer() -> None:
    rates = measure_rates(CPU)
    assert 1e8 < rates.matmul_flops_per_second < 1e15
    assert 1e8 < rates.copy_bytes_per_second < 1e13


def test_peaks_are_found_by_the_names_that_torch_gives() -> None:
    assert bf16_flops("NVIDIA H100 80GB HBM3") == bf16_flops("NVIDIA H200") == 989e12
    assert bf16_flops("NVIDIA H100 PCIe") == 756e12
    assert bf16_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert bf16_flops("NVIDIA GB200") == most_flops("NVIDIA GB200") == 2500e12
    assert [most_flops(f"NVIDIA {name}") for name in ("L4", "L40", "L40S")] == [121e12, 181e12, 362e12]
    assert bf16_flops("NVIDIA GeForce RTX 4090") is None
    assert most_flops("NVIDIA GeForce RTX 4090") == 330.3e12
    assert bf16_flops("NVIDIA GeForce RTX 2060") is None and bf16_flops("") is None


def floor_of(report: StepReport, variant: str) -> StepFloor:
    return next(each.floor for each in report.variants if each.variant == variant)


def test_the_floor_of_a_step_follows_from_units_tokens_width_and_rates(report: StepReport) -> None:
    """4 sublayers of width 16, 256 tokens, fp32; 24 numbers of maps forward are counted beside the units."""
    assert {level: floor_of(report, "mhc").traffic[level].units for level in LEVELS} == {
        "unfused": 34 + 59,
        "fused": 18 + 31,
        "joined": 14 + 23,
        "resident": 10 + 19,
    }
    moved = floor_of(report, "baseline").traffic["joined"]
    assert moved.bytes == 4 * 256 * 6 * 16 * 4
    assert moved.seconds == pytest.approx(moved.bytes / report.rates.copy_bytes_per_second)
    assert floor_of(report, "mhc").traffic["joined"].bytes > 4 * 256 * 37 * 16 * 4


def test_a_floor_in_per_cent_is_the_traffic_beyond_the_baselines_over_its_step(report: StepReport) -> None:
    mhc, base = floor_of(report, "mhc"), floor_of(report, "baseline")
    extra = mhc.traffic["fused"].seconds - base.traffic["fused"].seconds
    assert floor_overhead(mhc, base, 2.0)["fused"] == pytest.approx(extra / 2)
    for each in report.variants:
        found = list(each.floor_overhead.values())
        assert found == sorted(found, reverse=True) and len(found) == len(LEVELS)
        assert each.utilisation == pytest.approx(
            each.floor.flops / each.quantiles.p50 / report.rates.matmul_flops_per_second
        )
    assert set(report.variants[0].floor_overhead.values()) == {0.0}


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str], KeptActivations]:
    return {(each.variant, each.recompute): each for each in kept_activations(configs())}


@pytest.mark.parametrize("variant", VARIANTS)
def test_recomputation_keeps_what_the_paper_counts(
    kept: dict[tuple[str, str], KeptActivations], variant: str
) -> None:
    """Two blocks or layers of two sublayers each. The first starts with the embedding, which is one hidden
    state and not n, and is not made by the path; the last stream is collapsed to one, which the head keeps.
    """
    n = kept[variant, "block"].streams
    for recompute, outputs in (("layer", 0), ("block", 4)):
        found = kept[variant, recompute]
        assert found.formula_bytes == found.unit_bytes * (2 * n + outputs)
        assert found.path_bytes == found.unit_bytes * (n + 1 + outputs)
    assert kept[variant, "none"].path_bytes > kept[variant, "none"].formula_bytes


def test_block_recompute_leaves_attention_and_mlp_what_they_keep(
    kept: dict[tuple[str, str], KeptActivations],
) -> None:
    for variant in VARIANTS:
        assert kept[variant, "block"].sublayer_bytes == kept[variant, "none"].sublayer_bytes > 0
        assert kept[variant, "layer"].sublayer_bytes == 0
        assert kept[variant, "none"].sublayer_bytes == kept["baseline", "none"].sublayer_bytes


def test_bf16_is_measured_through_the_units_that_train_it() -> None:
    config = toy.run_config("mhc")
    config.training.precision = "bf16"
    source = open_source(config.data)
    with one_rank([config]):
        subject = StepSubject(config, source, 1)
        seen = []
        layer = subject.module.model.model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
        layer.mlp_residual.operations = Spy(layer.mlp_residual.operations, seen)
        assert torch.isfinite(subject.step())
    assert not torch.distributed.is_initialized()
    # the MLP in bf16, its connection's parameters in fp32
    assert seen == [torch.float32, torch.bfloat16]


class Spy:
    """Notes the dtype of the parameters that a connection's maps are made from."""

    def __init__(self, operations: object, seen: list[torch.dtype]) -> None:
        self._operations, self._seen = operations, seen

    def __getattr__(self, name: str) -> object:
        return getattr(self._operations, name)

    def write_read(self, *given: object) -> object:
        self._seen.append(given[-1].phi[0].dtype)  # type: ignore[attr-defined]
        return self._operations.write_read(*given)  # type: ignore[attr-defined]


def test_parts_of_a_batch_take_one_step_together() -> None:
    whole, parted = toy.run_config("mhc"), toy.run_config("mhc")
    parted.hardware.rows_per_device = 1
    source = open_source(whole.data)
    losses = []
    for config in (whole, parted):
        subject = StepSubject(config, source, 2)
        losses.append([float(subject.step()) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][0] != losses[0][1]


def test_the_report_prints_every_part_and_is_plain_json(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhc_bench.bench.report.affordable_chunks", lambda config, pair_seconds: 1)
    said: list[str] = []
    report = run_bench_step(configs(), steps=3, warmup=0, command="bench", say=said.append)
    assert len(said) == 4 and "hand-written loop, about" in said[2]
    assert capfd.readouterr() == ("", "")
    text = report.to_text()
    parts = (
        "eager for baseline, hc, mhc",
        "tokens/s",
        "overhead %",
        "MFU",
        "Floor",
        "joined",
        "L_r",
        "hand-written loop",
        "all operators",
    )
    for expected in (*VARIANTS, *parts):
        assert expected in text
    assert max(len(line) for line in text.splitlines()) <= 120
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(content) == {"schema", "steps", "activations", "overhead", "profiles", "origin"}
    assert set(content["steps"]["variants"][0]) == {
        *("variant", "quantiles", "tokens_per_second", "ratio", "peak_step_bytes", "state_bytes", "floor"),
        *("floor_overhead", "utilisation", "peak_utilisation", "n", "operations", "operations_reason"),
    }
    assert content["steps"]["suite"] == "toy" and content["origin"]["command"] == "bench"
    write_figure(lambda: draw_steps(report), tmp_path / "step.svg")
    picture = (tmp_path / "step.svg").read_text()
    for expected in ("mhc", "traffic, joined", "block", "the paper's count"):
        assert expected in picture


def test_a_gpus_report_holds_the_overhead_against_the_papers(report: StepReport) -> None:
    on_gpu = dataclasses.replace(report, gpu="NVIDIA H200", device="cuda")
    text = "\n".join(goal_lines(on_gpu))
    assert "6.7 %" in text and "1.3 x the floor" in text
    assert not any("1.3" in line for line in goal_lines(report))

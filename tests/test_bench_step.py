"""Steps of several variants measured in one process, and our training against a hand-written loop."""

from __future__ import annotations

import dataclasses
import json

import evaluation_toy as toy
import pytest
import torch

from mhc_bench.bench import StepReport, measure_steps, run_bench_step
from mhc_bench.bench.floor import residual_elements, stream_count
from mhc_bench.bench.handloop import HandLoop
from mhc_bench.bench.overhead import measure_overhead
from mhc_bench.bench.profiling import peak_step_bytes, profile_steps
from mhc_bench.bench.rates import measure_rates
from mhc_bench.bench.subject import StepSubject
from mhc_bench.config import RunConfig, protocol_id
from mhc_bench.data import open_source
from mhc_bench.errors import UsageError
from mhc_bench.model import shared_weight_digest
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


def test_residual_traffic_follows_the_papers_table() -> None:
    """Table 2 of arXiv 2512.24880, summed row by row, for n = 4 and C = 10."""
    n, width = 4, 10
    reads = [n * width, n * width + n, width + n, n * width + n * n, 2 * n * width]
    writes = [n * n + 2 * n, width, n * width, n * width, n * width]
    assert residual_elements(n, width)[1] == sum(reads) + sum(writes)
    assert residual_elements(n, width)[0] == 18 * width
    assert residual_elements(1, width) == (3 * width, 3 * width)


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


def test_measured_rates_are_those_of_a_computer() -> None:
    rates = measure_rates(CPU)
    assert 1e8 < rates.matmul_flops_per_second < 1e15
    assert 1e8 < rates.copy_bytes_per_second < 1e13


def test_the_report_prints_every_part_and_is_plain_json(capfd: pytest.CaptureFixture[str]) -> None:
    report = run_bench_step(configs(), steps=3, warmup=0, chunks=1)
    assert capfd.readouterr() == ("", "")
    text = report.to_text()
    for expected in (*VARIANTS, "tokens/s", "x baseline", "Floor", "hand-written loop", "all operators"):
        assert expected in text
    assert max(len(line) for line in text.splitlines()) <= 120
    assert json.loads(json.dumps(report.to_json()))["steps"]["suite"] == "toy"

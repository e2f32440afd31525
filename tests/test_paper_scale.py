"""The shipped protocols of paper scale: what they count, what they say, and what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mhc_bench.config import load_suite, run_configs
from mhc_bench.errors import UsageError
from mhc_bench.suite.commands import train
from mhc_bench.suite.describe import describe_suite
from mhc_bench.suite.preflight import preflight
from mhc_bench.training.schedule import multiplier

PAPER = ("paper-3b", "paper-9b", "paper-27b", "paper-3b-1t")
DENSE = ("dense-125m", "dense-350m", "dense-1b", "moe-300m-a60m")


def short(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


@pytest.mark.parametrize(
    ("suite", "total", "active", "vocabulary"),
    [
        ("paper-3b", "2.97B", "612M", "331M"),
        ("paper-9b", "9.18B", "1.66B", "496M"),
        ("paper-27b", "27.05B", "4.14B", "662M"),
        ("paper-3b-1t", "2.97B", "612M", "331M"),
    ],
)
def test_a_paper_suite_with_mhc_counts_as_the_paper_s_table(
    suite: str, total: str, active: str, vocabulary: str
) -> None:
    content = describe_suite(suite, ["variant=mhc"])
    counts = content["parameters"]
    found = short(counts["total"]), short(counts["active"]), short(counts["vocabulary"])
    assert found == (total, active, vocabulary)
    layers, width = {"paper-9b": (18, 1920), "paper-27b": (30, 2560)}.get(suite, (12, 1280))
    assert counts["residual"] == 2 * layers * (96 * width + 27)
    assert content["flops_per_token"] > 6 * counts["active"]


@pytest.mark.parametrize(
    ("suite", "rows", "steps", "rate", "tokens"),
    [
        ("paper-3b", 320, 30_000, 8.6e-4, 39.3e9),
        ("paper-9b", 512, 50_000, 5.9e-4, 105e9),
        ("paper-27b", 1280, 50_000, 4.0e-4, 262e9),
        ("paper-3b-1t", 2560, 100_000, 9.0e-4, 1.05e12),
    ],
)
def test_a_paper_suite_trains_as_the_paper_s_table_says(
    suite: str, rows: int, steps: int, rate: float, tokens: float
) -> None:
    loaded = load_suite(suite)
    training, optimizer = loaded.training, loaded.optimizer
    assert (training.sequence_length, training.batch_tokens) == (4096, rows * 4096)
    assert (training.steps, training.precision) == (steps, "bf16")
    assert training.batch_tokens * training.steps == pytest.approx(tokens, rel=0.005)
    assert (optimizer.learning_rate, optimizer.betas) == (rate, [0.9, 0.95])
    assert (optimizer.epsilon, optimizer.weight_decay) == (1e-20, 0.1)
    at = {step: multiplier(optimizer.schedule, step, steps) for step in (0, 1999, 2000, int(0.8 * steps) - 1)}
    assert at == {0: 1 / 2000, 1999: 1.0, 2000: 1.0, int(0.8 * steps) - 1: 1.0}
    later = [multiplier(optimizer.schedule, int(share * steps), steps) for share in (0.8, 0.9)]
    assert later == [0.316, 0.1]


@pytest.mark.parametrize("suite", PAPER)
def test_a_paper_suite_s_norms_and_streams_are_the_paper_s(suite: str) -> None:
    loaded = load_suite(suite)
    assert loaded.model.backbone["rms_norm_eps"] == 1e-20
    assert loaded.model.backbone["rope_parameters"]["rope_theta"] == 10_000
    mhc, hc = (loaded.variants[name].options for name in ("mhc", "hc"))
    assert (mhc["streams"], mhc["sinkhorn_iterations"], mhc["alpha"], mhc["epsilon"]) == (4, 20, 0.01, 1e-20)
    assert (hc["streams"], hc["scale"], hc["epsilon"]) == (4, 0.01, 1e-20)


@pytest.mark.parametrize("suite", DENSE)
def test_other_suites_train_on_twenty_tokens_for_each_active_parameter(suite: str) -> None:
    content = describe_suite(suite, ["variant=baseline"])
    training = load_suite(suite).training
    assert content["tokens_per_run"] == pytest.approx(
        20 * content["parameters"]["active"], abs=training.batch_tokens
    )


@pytest.mark.parametrize("suite", [*PAPER, *DENSE])
def test_without_the_shards_a_run_is_refused_before_anything_is_written(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path / "cache"))
    overrides = ["hardware=cpu"]
    with pytest.raises(UsageError, match=r"not prepared: .*mhc-bench prepare fineweb-edu"):
        preflight(run_configs(load_suite(suite, overrides)))
    with pytest.raises(UsageError, match=r"not prepared: .*mhc-bench prepare fineweb-edu"):
        train(suite, [*overrides, "variant=mhc", "seed=0"], tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_counting_a_model_does_not_wait_for_lightning() -> None:
    script = (
        "import sys; from mhc_bench.suite.describe import describe_suite;"
        "describe_suite('paper-3b', ['variant=mhc']);"
        "sys.exit(bool({'lightning', 'lm_eval'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

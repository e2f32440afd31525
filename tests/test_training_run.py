"""One training run against a hand-written loop, and what it leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import tiny_run, write_corpus

from mhc_bench.config import RunConfig
from mhc_bench.data import open_source
from mhc_bench.errors import UsageError
from mhc_bench.model import build_backbone, graft, load_model, materialise
from mhc_bench.training import TrainingSummary, fit, read_summary
from mhc_bench.training.summary import count_spikes, loss_curve


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.getbasetemp() / "corpus")


def losses_of(summary: TrainingSummary) -> list[float]:
    return [point["loss"] for point in summary.loss_curve]


def rows_of(run_dir: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (run_dir / name).open() as handle:
        return list(csv.DictReader(handle))


def hand_written(config: RunConfig) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a loop that knows nothing of Lightning or of the shipped groups."""
    source = open_source(config.data)
    tokenizer = source.tokenizer
    model = build_backbone(
        config.model.family,
        config.model.backbone,
        vocabulary=source.vocabulary,
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        max_positions=config.training.sequence_length,
    )
    model = graft(model, config.variant.connection)
    start = config.model.initialisation
    materialise(model, config.seed, rule=start.rule, scale=start.scale, depth_scaled=start.depth_scaled)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for n, p in model.named_parameters() if "proj" in n or "lm_head" in n],
                "weight_decay": 0.1,
            },
            {
                "params": [p for n, p in model.named_parameters() if not ("proj" in n or "lm_head" in n)],
                "weight_decay": 0,
            },
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    length, steps = config.training.sequence_length, config.training.steps
    losses, norms = [], []
    for step in range(steps):
        rows = np.stack([source.train_row(config.seed, 4 * step + place, length + 1) for place in range(4)])
        ids = torch.from_numpy(rows)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        loss.backward()
        norms.append(
            float(torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None)))
        )
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= min(1.0, 1.0 / norms[-1])
        done = step + 1
        rate = done / 2 if step < 2 else 0.1 + 0.45 * (1 + math.cos(math.pi * (done - 2) / (steps - 2)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms


def test_training_follows_a_hand_written_loop(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(corpus, steps=10)
    losses, norms = hand_written(config)
    summary = fit(config, tmp_path / "run")
    assert losses_of(summary) == pytest.approx(losses, abs=2e-6)
    assert summary.gradient_norm["max"] == pytest.approx(max(norms), rel=1e-5)
    assert summary.gradient_norm["mean"] == pytest.approx(sum(norms) / 10, rel=1e-5)
    assert summary.initial_loss == pytest.approx(losses[0], abs=1e-6)


def test_a_run_leaves_summary_tables_and_a_model_and_nothing_to_resume_from(
    corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    summary = fit(tiny_run(corpus, "mhc", steps=7), run)
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "depth.json",
        "metrics.csv",
        "operations.json",
        "probes.csv",
        "training.json",
        "checkpoints",
    }
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["final"]
    assert (summary.status, summary.steps, summary.tokens) == ("complete", 7, 448)
    assert (summary.restarts, summary.nonfinite_steps, summary.diverged_step) == (0, 0, None)
    assert json.loads((run / "training.json").read_text())["steps"] == 7
    assert [row["step"] for row in summary.validation] == [3, 6, 7]
    assert [int(row["step"]) for row in rows_of(run) if row["loss"]] == [2, 4, 6, 7]
    assert summary.peak_memory_bytes > 2**20 and summary.step_seconds["p10"] <= summary.step_seconds["p90"]
    assert summary.parameters["residual"] > 0 and summary.flops_per_token > 0


def test_the_saved_model_has_the_validation_loss_that_was_reported(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(corpus, "hc")
    summary = fit(config, tmp_path / "run")
    model, _ = load_model(tmp_path / "run" / "checkpoints" / "final")
    source = open_source(config.data)
    ids = torch.from_numpy(source.validation_rows(17))
    logits = model(input_ids=ids[:, :-1]).logits.detach()
    loss = F.cross_entropy(logits.flatten(0, 1).double(), ids[:, 1:].flatten()).item()
    last = summary.validation[-1]
    assert last["loss"] == pytest.approx(loss, abs=1e-5)
    assert last["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert last["bits_per_byte"] == pytest.approx(
        loss / math.log(2) / source.validation_bytes_per_token(17), rel=1e-5
    )


def test_the_token_stream_digest_is_a_chain_over_the_rows_in_order(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(corpus, steps=3)
    chain = bytes(32)
    for step in range(3):
        rows = [open_source(config.data).train_row(0, 4 * step + place, 17) for place in range(4)]
        chain = hashlib.sha256(
            chain + b"".join(hashlib.sha256(row.astype("<i4").tobytes()).digest() for row in rows)
        ).digest()
    assert fit(config, tmp_path / "run").token_stream_digest == chain.hex()


def test_variants_share_start_weights_and_tokens_and_seeds_share_neither(
    corpus: Path, tmp_path: Path
) -> None:
    runs = [
        fit(tiny_run(corpus, variant, steps=2), tmp_path / variant) for variant in ("baseline", "hc", "mhc")
    ]
    other = fit(tiny_run(corpus, steps=2, seed=1), tmp_path / "other")
    assert (
        len({run.shared_weight_digest for run in runs}) == len({run.token_stream_digest for run in runs}) == 1
    )
    assert len({run.weight_digest for run in runs}) == 3
    assert other.shared_weight_digest != runs[0].shared_weight_digest
    assert other.token_stream_digest != runs[0].token_stream_digest


def test_gradient_accumulation_gives_the_larger_batch(corpus: Path, tmp_path: Path) -> None:
    whole = fit(tiny_run(corpus, "mhc", steps=8), tmp_path / "whole")
    parts = fit(tiny_run(corpus, "mhc", steps=8, hardware__rows_per_device=1), tmp_path / "parts")
    assert losses_of(parts) == pytest.approx(losses_of(whole), abs=5e-6)
    assert parts.token_stream_digest == whole.token_stream_digest
    assert [row["step"] for row in parts.validation] == [row["step"] for row in whole.validation]


def test_the_same_run_twice_gives_the_same_bits_also_with_dropout(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(corpus, steps=4)
    config.model.backbone["attention_dropout"] = 0.3
    config = dataclasses.replace(config)
    first, second = (fit(_named(config), tmp_path / name) for name in "ab")
    plain = fit(tiny_run(corpus, steps=4), tmp_path / "c")
    assert first.weight_digest == second.weight_digest != plain.weight_digest


def _named(config: RunConfig) -> RunConfig:
    from mhc_bench.config import protocol_id

    return dataclasses.replace(config, protocol_id=protocol_id(config))


def test_a_finished_run_is_not_trained_again(corpus: Path, tmp_path: Path) -> None:
    config = tiny_run(corpus, steps=2)
    first = fit(config, tmp_path)
    before = (tmp_path / "training.json").stat().st_mtime_ns
    assert fit(config, tmp_path) == first == read_summary(tmp_path)
    assert (tmp_path / "training.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_run_that_is_not_finite_any_more_ends_as_diverged(
    corpus: Path, tmp_path: Path, clip: float | None
) -> None:
    config = tiny_run(corpus, steps=8, optimizer__learning_rate=1e6, optimizer__clip=clip)
    summary = fit(config, tmp_path)
    assert summary.status == "diverged" and summary.nonfinite_steps == 1
    assert summary.diverged_step is not None and summary.steps == summary.diverged_step - 1 < 8
    assert math.isfinite(summary.gradient_norm["max"])
    assert all(math.isfinite(point["loss"]) for point in summary.loss_curve)
    json.loads((tmp_path / "training.json").read_text(), parse_constant=pytest.fail)
    assert fit(config, tmp_path) == summary


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hardware__devices": 2}, "hardware.sharding=fsdp"),
        ({"training__batch_tokens": 40}, "multiple of training.sequence_length"),
        ({"hardware__devices": 3, "hardware__sharding": "fsdp"}, "share equally"),
        ({"training__steps": 0}, "training.steps is 0"),
        ({"seed": -1}, "seed is -1"),
        (
            {"hardware__accelerator": "gpu", "hardware__devices": 64, "hardware__sharding": "fsdp"}
            | {"training__batch_tokens": 1024},
            "CUDA devices",
        ),
        ({"hardware__nodes": 2, "hardware__sharding": "fsdp"}, "torchrun"),
        ({"logging__every": 0}, "logging.every is 0"),
        ({"variant__connection": "mch"}, "did you mean 'mhc'"),
        ({"model__family": "lama"}, "did you mean 'llama'"),
        ({"data__path": "nowhere"}, "does not exist"),
    ],
)
def test_a_run_that_cannot_be_trained_is_refused_before_anything_is_written(
    corpus: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        fit(tiny_run(corpus, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_the_folder_of_another_run_is_refused_and_left_alone(corpus: Path, tmp_path: Path) -> None:
    fit(tiny_run(corpus, steps=2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for other in (
        tiny_run(corpus, steps=2, seed=1),
        tiny_run(corpus, steps=3),
        tiny_run(corpus, "hc", steps=2),
    ):
        with pytest.raises(UsageError, match="holds another run"):
            fit(other, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_spike_stands_out_of_the_rolling_median() -> None:
    falling = [3.0 - 0.005 * step for step in range(400)]
    assert count_spikes(falling) == 0
    falling[300] = falling[200] + 0.11
    assert count_spikes(falling) == 1
    # the median of the 201 steps up to 300 is that of step 200; just below the margin is no spike
    falling[300] = falling[200] + 0.09
    assert count_spikes(falling) == 0


def test_the_loss_curve_has_at_most_two_hundred_points_and_keeps_the_mean() -> None:
    losses = [float(step) for step in range(1, 451)]
    curve = loss_curve(losses)
    assert len(curve) == 150 and curve[-1]["step"] == 450
    assert curve[0] == {"step": 3, "loss": 2.0}

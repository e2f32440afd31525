"""Compiled decoder layers: the same training, within what another order of additions changes."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_run, write_corpus
from torch import nn

from mhc_bench.training import TrainingSummary, fit

TOLERANCE = 5e-6


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_layers_train_as_eager_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to torch's own code generator, which would take minutes: its backend traces and differentiates."""

    def run(name: str, **changes: object) -> TrainingSummary:
        config = tiny_run(corpus, "mhc", steps=3, training__validate_every=2, **changes)
        config.variant.options = {"streams": 2, "sinkhorn_iterations": 2}
        return fit(config, tmp_path / name)

    monkeypatch.setenv("MHC_BENCH_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    corpus = write_corpus(tmp_path / "corpus")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager, compiled = run("eager"), run("compiled", hardware__compile=True)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    assert graphs >= 2  # the first and the last layer
    for a, b in zip(eager.loss_curve, compiled.loss_curve, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=TOLERANCE)
    for a, b in zip(eager.validation, compiled.validation, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=TOLERANCE)
    assert compiled.gradient_norm["max"] == pytest.approx(eager.gradient_norm["max"], rel=1e-4)
    # the probes look at the connections themselves, past the compiled code
    assert compiled.probes.keys() == eager.probes.keys()
    gains = [each.probes["composite_backward_gain"]["final"] for each in (eager, compiled)]
    assert gains[1] == pytest.approx(gains[0], rel=1e-4)

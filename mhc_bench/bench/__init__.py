"""Timings of training steps: variants in turn, our loop against a hand-written one, and the floor beside."""

from __future__ import annotations

from mhc_bench.bench.report import BenchStepReport, run_bench_step
from mhc_bench.bench.step import StepReport, VariantStep, measure_steps

__all__ = ["BenchStepReport", "StepReport", "VariantStep", "measure_steps", "run_bench_step"]

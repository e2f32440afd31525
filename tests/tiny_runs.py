"""Runs small enough to be trained many times over in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mhc_bench.config import (
    LoggerConfig,
    ModelConfig,
    RunConfig,
    TextConfig,
    TokenizerConfig,
    TrainingConfig,
    VariantConfig,
    cost_id,
    protocol_id,
)
from mhc_bench.config.schema import (
    HardwareConfig,
    InitialisationConfig,
    LoggingConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from mhc_bench.training.module import ResidualTraining

BACKBONE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "tie_word_embeddings": False,
}
CHANGING = {"tokens_per_second"}
"""Columns of metrics.csv that tell wall-clock time."""


class MachineGoneError(Exception):
    """What ends a run in the middle."""


def before_update(number: int, action: Callable[[], object]) -> Callable[..., None]:
    """For `ResidualTraining.configure_gradient_clipping`: `action` comes first in step `number` (from 1)."""
    clip, steps = ResidualTraining.configure_gradient_clipping, iter(range(1, 1000))

    def clipping(self: Any, *args: Any, **kwargs: Any) -> None:
        if next(steps) == number:
            action()
        clip(self, *args, **kwargs)

    return clipping


def write_corpus(folder: Path) -> Path:
    """A few files of made-up text that a small model can learn something from."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        lines = [f"{number} plus {k} is {number + k} and then {'abc' * (k % 3)} end" for k in range(40)]
        (folder / f"{number}.txt").write_text("\n".join(lines))
    return folder


def tiny_run(corpus: Path, variant: str = "baseline", *, steps: int = 6, **changes: Any) -> RunConfig:
    """A run over `corpus`; `changes` are dotted fields with `__` for the dot."""
    run = RunConfig(
        model=ModelConfig("llama", dict(BACKBONE), InitialisationConfig("fan_in", 0.5)),
        data=TextConfig(path=str(corpus), validation_tokens=128, tokenizer=TokenizerConfig(kind="bytes")),
        training=TrainingConfig(
            sequence_length=16, batch_tokens=64, steps=steps, validate_every=3, probe_every=3
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule=ScheduleConfig(warmup=2.0)),
        suite="tiny",
        variant_name=variant,
        variant=VariantConfig(variant),
        seed=0,
        hardware=HardwareConfig(),
        logging=LoggingConfig(every=2, checkpoint_every=2, loggers=list[LoggerConfig]()),
    )
    for name, value in changes.items():
        *path, last = name.split("__")
        target: Any = run
        for part in path:
            target = getattr(target, part)
        if not hasattr(target, last):
            raise AttributeError(name)
        setattr(target, last, value)
    run.protocol_id, run.cost_id = protocol_id(run), cost_id(run, run.hardware)
    return run

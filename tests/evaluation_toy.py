"""A tiny model, its tokenizer and two tiny lm-eval tasks, for the tests of evaluation."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mhc_bench.config import (
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
    VariantConfig,
    WorldConfig,
    cost_id,
    protocol_id,
)
from mhc_bench.data import open_source
from mhc_bench.evaluation.harness import Outcome, ask, make_lm
from mhc_bench.model import materialise, save_model
from mhc_bench.training.module import build_model

torch.set_num_threads(1)  # more threads only wait for each other on tensors this small

WORDS = ["<pad>", "<eos>", ".", *(f"w{i}" for i in range(60))]
CHOICE, GENERATION = "toy_choice", "toy_generation"
TRAINING = {
    "status": "complete",
    "steps": 7,
    "tokens": 12345,
    "parameters": {"total": 1000, "residual": 10},
    "data_identity": {"source": "world", "fingerprint": "abc"},
    "validation": [{"step": 7, "loss": 1.25}],
    "weight_digest": "feed",
}
"""The parts of a training summary that a model card shows."""

_LOADER = """
from __future__ import annotations

import random

import datasets

WORDS = [f"w{i}" for i in range(60)]


def _row(draw, sub):
    text = "<eos> " + " ".join(draw.choices(WORDS, k=draw.randint(2, 17)))
    choices = [" ".join(draw.choices(WORDS, k=draw.randint(1, 3))) for _ in range(3)]
    return {"context": text, "choices": choices, "gold": draw.randrange(3), "answer": choices[0], "sub": sub}


def load(world_seed=0, **rest):
    draw = random.Random(world_seed)
    rows = [_row(draw, "odd" if i % 2 else "even") for i in range(45)]
    return {"train": datasets.Dataset.from_list(rows[40:]), "test": datasets.Dataset.from_list(rows[:40])}
"""

_COMMON = """
custom_dataset: !function toy_loader.load
training_split: train
fewshot_split: train
test_split: test
doc_to_text: context
target_delimiter: " "
fewshot_delimiter: " "
metadata: {version: 1.5}
"""

_CHOICE = f"""
task: {CHOICE}
output_type: multiple_choice
num_fewshot: 1
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
{_COMMON}
"""

_GENERATION = f"""
task: {GENERATION}
output_type: generate_until
num_fewshot: 1
fewshot_config: {{sampler: first_n}}
doc_to_target: answer
generation_kwargs: {{until: [" ."], max_gen_toks: 5, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
{_COMMON}
"""


def write_tasks(folder: Path) -> Path:
    """The two tasks and their loader, as lm-eval files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy_loader.py").write_text(_LOADER)
    (folder / "choice.yaml").write_text(_CHOICE)
    (folder / "generation.yaml").write_text(_GENERATION)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", bos_token="<eos>"
    )


def model(seed: int = 0) -> LlamaForCausalLM:
    """A stock decoder whose weights are large enough that its answers depend on every word."""
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = LlamaForCausalLM(config)
        for parameter in made.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def rows(world_seed: int) -> list[dict[str, object]]:
    """The test items of a world, drawn again without lm-eval or datasets."""
    draw = random.Random(world_seed)
    made = []
    for i in range(40):
        text = "<eos> " + " ".join(draw.choices(WORDS[3:], k=draw.randint(2, 17)))
        choices = [" ".join(draw.choices(WORDS[3:], k=draw.randint(1, 3))) for _ in range(3)]
        gold = draw.randrange(3)
        made.append({"context": text, "choices": choices, "gold": gold, "sub": "odd" if i % 2 else "even"})
    return made


def run_config(variant: str = "mhc", *, world_seed: int = 3, tasks: tuple[str, ...] = ()) -> RunConfig:
    """A run of seconds: two layers of width 16 on the world."""
    widths = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    run = RunConfig(
        model=ModelConfig(family="llama", backbone=widths),
        data=WorldConfig(world_seed=world_seed, validation_tokens=512),
        training=TrainingConfig(
            sequence_length=128, batch_tokens=256, steps=4, validate_every=4, probe_every=2
        ),
        optimizer=OptimizerConfig(learning_rate=0.01),
        evaluation=EvaluationConfig(tasks=list(tasks), limit=6, batch_size=8),
        suite="toy",
        protocol_id="",
        cost_id="",
        variant_name=variant,
        variant=VariantConfig(connection=variant),
        seed=0,
    )
    return dataclasses.replace(run, protocol_id=protocol_id(run), cost_id=cost_id(run, run.hardware))


def trained(config: RunConfig, folder: Path, seed: int = 0) -> Path:
    """A run folder with a final model that has learned nothing."""
    source = open_source(config.data)
    model = build_model(config, source)
    materialise(model, seed, rule="fan_in", scale=1.0)
    save_model(model, source.tokenizer, folder / "checkpoints" / "final")
    return folder


def run_tasks(
    asked: LlamaForCausalLM,
    names: Sequence[str],
    *,
    batch_size: int = 64,
    precision: str = "fp32",
    **how: Any,
) -> Outcome:
    """What a model answers, asked as `ask` does it."""
    return ask(make_lm(asked, tokenizer(), batch_size, precision), names, **how)

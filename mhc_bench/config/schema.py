"""The typed configuration. `Protocol` is what all variants share; it is hashed into the protocol id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

ADDED_LATER_KEY = "added_later"
ADDED_LATER = {ADDED_LATER_KEY: True}
"""Metadata of a field that came after records were published: at its default it leaves their ids alone."""
PLACE_KEY = "place"
PLACE = {PLACE_KEY: True}
"""Metadata of a field that says where something lies, not what it is: no part of the ids."""


@dataclass
class InitialisationConfig:
    """How weight matrices start: each from (seed, parameter name) alone."""

    rule: Literal["normal", "fan_in"] = "normal"
    """`normal`: std = scale. `fan_in`: std = scale / sqrt(fan-in)."""
    scale: float = 0.02
    depth_scaled: bool = True
    """Divide the std of each sublayer's output projection by sqrt(number of sublayers)."""


@dataclass
class ModelConfig:
    """A decoder of `transformers`, named by family, with that family's own configuration fields."""

    family: str = MISSING
    backbone: dict[str, Any] = field(default_factory=dict)
    """Fields of the family's transformers configuration; vocabulary and special tokens come from the data."""
    initialisation: InitialisationConfig = field(default_factory=InitialisationConfig)


@dataclass
class DataConfig:
    """What every source of tokens has."""

    kind: str = MISSING
    validation_tokens: int = 65_536
    """Size of the validation stream, in tokens; the same for every variant and seed."""
    validation_split: Literal["validation", "selection"] = field(default="validation", metadata=ADDED_LATER)
    """What a run is validated on. `selection` is as large, has nothing in common with what tables report, and
    serves the trials of the tuned track."""


@dataclass
class WorldConfig(DataConfig):
    """The embedded procedural language: see `docs/world.md`."""

    kind: str = "world"
    world_seed: int = 0
    """Which facts; worlds of one scale share their words."""
    scale: int = 1
    """Multiplies the people, species and activities: how much there is to learn by heart."""


@dataclass
class TokenizerConfig:
    """`bytes`: one token per byte. `bpe`: a byte-level BPE trained on the training split."""

    kind: Literal["bytes", "bpe"] = "bpe"
    vocabulary: int = 2048


@dataclass
class TextConfig(DataConfig):
    """Real text from a local file or folder; `.jsonl` and `.parquet` files give their field `text`."""

    kind: str = "text"
    path: str = MISSING
    """A file or folder, or `stdlib`: the running Python's own standard-library sources."""
    suffixes: list[str] = field(default_factory=lambda: [".txt", ".md", ".py", ".jsonl"])
    validation_fraction: float = 0.05
    """Share of the files (by hash of their name and content) kept for validation."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


@dataclass
class ShardsConfig(DataConfig):
    """Token shards that `mhc-bench prepare` has written: see `docs/data.md`."""

    kind: str = "shards"
    path: str = field(default="", metadata=PLACE)
    """The folder of the shards; empty for one in the cache, named after the other fields."""
    source: str = MISSING
    """A Hugging Face dataset by name, or a local file or folder (text, `.jsonl`, `.parquet`), or `stdlib`."""
    subset: str = ""
    """Hugging Face: the dataset's configuration."""
    revision: str = ""
    """Hugging Face: a commit, tag or branch; empty for the newest. The manifest holds the commit."""
    split: str = "train"
    """Hugging Face: which split to read."""
    text_field: str = "text"
    """The field or column that holds the text."""
    suffixes: list[str] = field(default_factory=lambda: [".txt", ".md", ".py", ".jsonl", ".parquet"])
    """Local folder: which files to read."""
    tokenizer: str = MISSING
    """`bytes`; `bpe:<vocabulary>`, trained on the source; a `tokenizer.json` or its folder; or a Hub name."""
    vocabulary: int = MISSING
    """Rows of the embedding; a published tokenizer may have fewer tokens, never more."""
    separator: str = ""
    """The token before each document; empty for the tokenizer's own end-of-sequence token."""
    attention: Literal["across_documents"] = "across_documents"
    """Rows hold packed documents, and a token attends to all before it in its row."""
    validation_fraction: float = 0.005
    """Share of the documents (by hash of their text) kept for validation."""


@dataclass
class TrainingConfig:
    """Lengths and cadences that belong to the protocol. All are independent of the number of devices."""

    sequence_length: int = MISSING
    batch_tokens: int = MISSING
    """Tokens per optimizer step over all devices; a multiple of `sequence_length`."""
    steps: int = MISSING
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` keeps fp32 weights and computes in bf16; residual maps are computed in fp32 either way."""
    validate_every: int = 100
    probe_every: int = 50


@dataclass
class ScheduleConfig:
    """Learning-rate multiplier over the steps."""

    shape: Literal["constant", "cosine", "linear", "wsd", "step"] = "cosine"
    warmup: float = 0.05
    """Below 1: a fraction of all steps. From 1: a number of steps. Linear from 0."""
    floor: float = 0.1
    """cosine, linear, wsd: the multiplier at the last step."""
    decay_from: float = 0.8
    """wsd: the fraction of all steps at which the decay starts."""
    drops: dict[float, float] = field(default_factory=dict)
    """step: fraction of all steps -> multiplier from there on."""


@dataclass
class OptimizerConfig:
    """AdamW. Which parameters decay is the model's to say: backbone matrices, and what a variant names."""

    learning_rate: float = MISSING
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0
    """Largest global gradient norm; null leaves gradients unclipped."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    balancing_speed: float = field(default=0.0, metadata=ADDED_LATER)
    """Routed experts: what each step adds to a router's correction bias for an expert with less than the
    mean load over the global batch, and takes from one with more; 0 leaves the biases alone."""


@dataclass
class EvaluationConfig:
    """lm-eval tasks; empty for a suite that claims nothing downstream."""

    tasks: list[str] = field(default_factory=list)
    limit: int | None = None
    """Items per task, taken from the start of each task's fixed order; null for all."""
    batch_size: int = 64


@dataclass
class HardwareConfig:
    """Where a run is computed. Enters the cost id only."""

    accelerator: Literal["cpu", "gpu"] = "cpu"
    devices: int = 1
    """Devices (on a CPU: processes) per node."""
    nodes: int = 1
    sharding: Literal["none", "fsdp", "hsdp"] = "none"
    """`fsdp`: each rank keeps one shard of all parameters. `hsdp`: sharded over the devices of a node, and
    every node keeps a replica."""
    threads: int = 1
    """CPU threads of each process."""
    rows_per_device: int = 0
    """Rows of one forward pass on a device; 0 for a device's whole share of the batch."""
    workers: int = 0
    """Processes of each device that prepare rows; 0 prepares them between the steps."""
    recompute: Literal["none", "layer", "block"] = field(default="none", metadata=ADDED_LATER)
    """What the backward pass computes again instead of keeping it. `layer`: each decoder layer. `block`: the
    residual connections and pre-norms alone, as in the mHC paper, not attention and MLP."""
    recompute_sublayers: int = field(default=0, metadata=ADDED_LATER)
    """block: sublayers that share one kept stream, the paper's L_r; 0 for sqrt(n L / (n + 2))."""
    operations: Literal["auto", "reference", "eager", "compiled", "triton"] = field(
        default="auto", metadata=ADDED_LATER
    )
    """Which implementation computes the residual connections' operations (`mhc_bench.ops`)."""
    compile: bool = field(default=False, metadata=ADDED_LATER)
    """torch.compile each decoder layer."""
    collective_timeout: int = field(default=1800, metadata=ADDED_LATER)
    """Several devices: seconds that a rank waits for the others before the run ends with an error."""
    worker_timeout: int = field(default=600, metadata=ADDED_LATER)
    """Seconds that training waits for a row from `workers` before the run ends with an error."""
    side_by_side: int = 0
    """Runs at the same time; 0 for as many as finish sooner (CPU) or as there are free devices (GPU)."""


@dataclass
class LauncherConfig:
    """How `mhc-bench run` starts its runs: no part of any id, and a run may be gone on with by another."""

    kind: str = "local"
    """`local`: processes of this machine, as many side by side as `hardware.side_by_side` says."""


@dataclass
class SlurmConfig(LauncherConfig):
    """One SLURM job per run, of `hardware.nodes` x `hardware.devices` tasks: see `docs/hardware.md`."""

    kind: str = "slurm"
    time: str = "24h"
    """Limit of a job, such as 90m, 24h or 2d. A run that needs longer goes on in the same job, requeued."""
    grace: int = 300
    """Seconds before the limit at which a job is told to stop: two steps and a checkpoint must fit in."""
    requeues: int = 100
    """How often a job that was told to stop is queued again."""
    partition: str = ""
    """Empty, here and below: what the cluster has as its default."""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    memory: str = ""
    """Of each node, such as 200G."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch by their long names, such as `reservation`."""
    setup: list[str] = field(default_factory=list)
    """Shell commands of the job before the run, such as `module load cuda`."""
    wait: bool = True
    """Wait for the jobs and rank their records; else the same command, given later, ranks what is there."""
    poll: float = 15.0
    """Seconds between two looks at the queue."""


@dataclass
class LoggerConfig:
    """Any Lightning logger: a class of `lightning.pytorch.loggers` or a dotted path, and its arguments."""

    class_path: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LoggingConfig:
    """What is written while a run goes on; changes no result."""

    every: int = 10
    """Steps between two rows of metrics."""
    checkpoint_every: int = 200
    """Steps between two checkpoints to resume from."""
    checkpoint_async: bool = field(default=False, metadata=ADDED_LATER)
    """Write checkpoints while training goes on, from a copy in host memory (12 bytes for each parameter that
    a rank holds). Off by default: the writing would show in the measured step times."""
    keep_best: bool = field(default=False, metadata=ADDED_LATER)
    """Keep `checkpoints/best`: the one with the lowest validation loss of those taken right after a
    validation."""
    milestones: list[float] = field(default_factory=list, metadata=ADDED_LATER)
    """When to take a checkpoint that stays. Below 1: a fraction of all steps. From 1: a number of steps."""
    loggers: list[LoggerConfig] = field(default_factory=lambda: [LoggerConfig("TensorBoardLogger")])
    """Besides `metrics.csv` and `probes.csv`, which are always written."""


@dataclass
class VariantConfig:
    """A residual connection: its registered name or `module:Class`, and its options."""

    connection: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)
    perturbation: float = field(default=0.0, metadata=ADDED_LATER)
    """A/A runs of the baseline: how far each start weight is moved, relative to its size. Such a run is a
    repetition that shows what rounding alone does, and no row of a table."""


@dataclass
class TuningConfig:
    """What was spent on choosing a suite's free values before its runs: for records, not for ids."""

    runs: int | None = None
    """Training runs of that search; null where nobody counted."""
    suite: str = ""
    """The suite whose records show it."""


@dataclass
class SearchConfig:
    """The tuned track: each variant is trained with the values that did best in trials of its own.

    All variants get the same grid, learning rates x weight decays, and the same seeds.
    """

    learning_rates: list[float] = MISSING
    weight_decays: list[float] = field(default_factory=list)
    """Empty for the optimizer's own alone."""
    seeds: list[int] = MISSING
    """Of the trials; none of them is a seed of the runs."""
    rule: Literal["lowest_mean_loss"] = "lowest_mean_loss"
    """The grid point whose trials end with the lowest loss on the selection split, mean over their seeds."""


@dataclass
class TunedConfig:
    """A point of the grid: what the trials chose for one variant."""

    learning_rate: float = MISSING
    weight_decay: float = MISSING


@dataclass
class Protocol:
    """Everything that all variants of a table share and that can change a result."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    search: SearchConfig | None = field(default=None, metadata=ADDED_LATER)
    """Null for the fixed track: the optimizer's values for every variant."""


@dataclass
class RunConfig(Protocol):
    """One run, resolved: the content of a run's `config.yaml`."""

    suite: str = MISSING
    arm: str = ""
    """Which protocol of a study this is; empty where a suite has one protocol."""
    protocol_id: str = MISSING
    cost_id: str = MISSING
    variant_name: str = MISSING
    variant: VariantConfig = field(default_factory=VariantConfig)
    seed: int = MISSING
    tuned: TunedConfig | None = None
    """Tuned track: what replaces the optimizer's own values. No part of any id."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class SuiteConfig(Protocol):
    """A protocol (or, with `arms`, a study of several), the variants and the seeds."""

    name: str = MISSING
    description: str = ""
    note: str = ""
    """Said on the leaderboard page, above the tables."""
    tuning: TuningConfig = field(default_factory=TuningConfig)
    seeds: list[int] = field(default_factory=list)
    variants: dict[str, VariantConfig] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Study: arm name -> the protocol fields in which that arm differs."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


DATA_KINDS: dict[str, type[DataConfig]] = {
    "world": WorldConfig,
    "text": TextConfig,
    "shards": ShardsConfig,
}

LAUNCHER_KINDS: dict[str, type[LauncherConfig]] = {
    "local": LauncherConfig,
    "slurm": SlurmConfig,
}

"""Values that have the right type and make no sense: refused before anything is computed or written."""

from __future__ import annotations

import dataclasses
import os
import re

from mhc_bench.config.schema import (
    DataConfig,
    HardwareConfig,
    LauncherConfig,
    LoggingConfig,
    OptimizerConfig,
    Protocol,
    SearchConfig,
    ShardsConfig,
    SlurmConfig,
    SuiteConfig,
    TextConfig,
    TrainingConfig,
    VariantConfig,
    WorldConfig,
)
from mhc_bench.config.values import LARGEST
from mhc_bench.errors import UsageError
from mhc_bench.limits import MOST_LAYERS

LARGEST_PERTURBATION = 1e-3
"""Relative: beyond this a start is another start and no repetition."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"
DURATION = r"[1-9][0-9]*[mhd]"
MOST_PROCESSES = 2**16
LARGEST_VOCABULARY = 2**24
LONGEST_WAIT = 7 * 24 * 3600
LONGEST_JOB = 365 * 24 * 60
"""Minutes."""
MOST_STEPS = 2**31 - 1
"""Also of what is counted in steps, items or runs."""
LARGEST_BATCH = 2**31
LONGEST_SEQUENCE = 2**20
"""Each process writes a whole row before it can start; the largest shipped suites have 4096."""
MOST_VALIDATION_TOKENS = 2**24
"""Each process holds them, 8 bytes a token, and they are made before a run is planned: the embedded world
writes a million in one or two seconds. The largest shipped suites have 2^20."""
LARGEST_BATCH_OF_ITEMS = 2**16
LARGEST_FACTOR = 1e6
"""Of rates, scales, norms and multipliers: nothing trains with more, and fp32 ends far above it."""


def check_suite(suite: SuiteConfig) -> None:
    """Refuse a suite that cannot be run.

    Raises:
        UsageError: naming the value and what was expected.
    """
    for field, names in (("name", [suite.name]), ("variants", suite.variants), ("arms", suite.arms)):
        for name in names:
            expected = "letters, digits, . _ + and -, a letter or digit first: it names a folder"
            _require(re.fullmatch(NAME, name) is not None, field, repr(name), expected)
    _require(bool(suite.variants), "variants", "an empty list", "at least one variant")
    _require(bool(suite.seeds), "seeds", "an empty list", "at least one seed, such as seeds=[0,1,2]")
    _require(len(set(suite.seeds)) == len(suite.seeds), "seeds", suite.seeds, "each seed once")
    for seed in suite.seeds:
        _require(0 <= seed < 2**31, "seeds", seed, "whole numbers from 0 to 2147483647")
    for name, variant in suite.variants.items():
        _check_perturbation(name, variant)
    if suite.search:
        shared = sorted({*suite.seeds} & {*suite.search.seeds})
        _require(not shared, "search.seeds", suite.search.seeds, f"none of the runs' own seeds, not {shared}")
    runs = suite.tuning.runs
    counted = runs is None or 0 <= runs <= MOST_STEPS
    _require(counted, "tuning.runs", runs, f"0 to {MOST_STEPS}, or null where nobody counted")
    check_protocol(suite, suite.hardware)
    check_launcher(suite.launcher)
    check_logging(suite.logging, suite.training.steps)


def _check_perturbation(name: str, variant: VariantConfig) -> None:
    """An A/A run is the baseline under another name."""
    field, value = f"variants.{name}.perturbation", variant.perturbation
    _require(0 <= value <= LARGEST_PERTURBATION, field, value, f"0 to {LARGEST_PERTURBATION}")
    again = variant.connection == "baseline" and name != "baseline"
    _require(not value or again, field, value, "0 but for the baseline under another name: see baseline-aa")


def check_protocol(protocol: Protocol, hardware: HardwareConfig) -> None:
    """Refuse a protocol that cannot be trained or evaluated on this hardware.

    Raises:
        UsageError: naming the value and what was expected.
    """
    scale = protocol.model.initialisation.scale
    expected = f"a positive number up to {LARGEST_FACTOR:g}"
    _require(0 < scale <= LARGEST_FACTOR, "model.initialisation.scale", scale, expected)
    check_training(protocol.training)
    check_optimizer(protocol.optimizer)
    check_hardware(hardware, protocol.training)
    limit, size = protocol.evaluation.limit, protocol.evaluation.batch_size
    some = limit is None or 0 < limit <= MOST_STEPS
    _require(some, "evaluation.limit", limit, f"1 to {MOST_STEPS}, or null for all")
    expected = f"1 to {LARGEST_BATCH_OF_ITEMS}"
    _require(0 < size <= LARGEST_BATCH_OF_ITEMS, "evaluation.batch_size", size, expected)
    check_data(protocol.data)
    if protocol.search:
        check_search(protocol.search, protocol.optimizer)


def check_search(search: SearchConfig, optimizer: OptimizerConfig) -> None:
    """A grid of values that a run can have, the optimizer's own among them."""
    for name, own in (("learning_rate", optimizer.learning_rate), ("weight_decay", optimizer.weight_decay)):
        values: list[float] = getattr(search, f"{name}s")
        expected = f"different values, optimizer.{name} = {own} among them"
        optional = name == "weight_decay" and not values
        _require(optional or own in values, f"search.{name}s", values, expected)
        _require(len(set(values)) == len(values), f"search.{name}s", values, expected)
    for rate in search.learning_rates:
        check_optimizer(dataclasses.replace(optimizer, learning_rate=rate))
    for decay in search.weight_decays:
        check_optimizer(dataclasses.replace(optimizer, weight_decay=decay))
    _require(
        bool(search.seeds), "search.seeds", "an empty list", "at least one seed, such as search.seeds=[100]"
    )
    _require(len(set(search.seeds)) == len(search.seeds), "search.seeds", search.seeds, "each seed once")
    for seed in search.seeds:
        _require(0 <= seed < 2**31, "search.seeds", seed, "whole numbers from 0 to 2147483647")


def check_data(data: DataConfig) -> None:
    """Sizes and shares that a source can have."""
    tokens, most = data.validation_tokens, MOST_VALIDATION_TOKENS
    _require(0 < tokens <= most, "data.validation_tokens", tokens, f"1 to {most}")
    if isinstance(data, (TextConfig, ShardsConfig)):
        share = data.validation_fraction
        _require(0 < share < 1, "data.validation_fraction", share, "between 0 and 1")
        _require(bool(data.suffixes), "data.suffixes", data.suffixes, "at least one, such as .txt")
    if isinstance(data, WorldConfig):
        seed = data.world_seed
        _require(0 <= seed < 2**31, "data.world_seed", seed, "a whole number from 0 to 2147483647")
    if isinstance(data, TextConfig):
        size = data.tokenizer.vocabulary
        expected = f"258 (bytes, padding and end) to {LARGEST_VOCABULARY}"
        _require(258 <= size <= LARGEST_VOCABULARY, "data.tokenizer.vocabulary", size, expected)
    if isinstance(data, ShardsConfig):
        _require(0 < data.vocabulary <= 2**31, "data.vocabulary", data.vocabulary, "1 to 2147483648")


def check_training(training: TrainingConfig) -> None:
    """Lengths that fit each other."""
    most = {"sequence_length": LONGEST_SEQUENCE, "batch_tokens": LARGEST_BATCH}
    for name in ("sequence_length", "batch_tokens", "steps", "validate_every", "probe_every"):
        value, largest = getattr(training, name), most.get(name, MOST_STEPS)
        _require(0 < value <= largest, f"training.{name}", value, f"1 to {largest}")
    rest = training.batch_tokens % training.sequence_length
    _require(
        rest == 0,
        "training.batch_tokens",
        training.batch_tokens,
        f"a multiple of training.sequence_length = {training.sequence_length}",
    )
    # records count the tokens of a run
    most_steps = LARGEST // training.batch_tokens
    expected = f"at most {most_steps} of training.batch_tokens = {training.batch_tokens}"
    _require(training.steps <= most_steps, "training.steps", training.steps, expected)


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Positive rates, betas below one, a schedule inside the run."""
    rate, clip, schedule = optimizer.learning_rate, optimizer.clip, optimizer.schedule
    positive = f"a positive number up to {LARGEST_FACTOR:g}"
    _require(0 < rate <= LARGEST_FACTOR, "optimizer.learning_rate", rate, positive)
    _require(
        len(optimizer.betas) == 2 and all(0 <= beta < 1 for beta in optimizer.betas),
        "optimizer.betas",
        optimizer.betas,
        "two numbers from 0 to below 1",
    )
    _require(0 < optimizer.epsilon <= LARGEST_FACTOR, "optimizer.epsilon", optimizer.epsilon, positive)
    decay, expected = optimizer.weight_decay, f"0 to {LARGEST_FACTOR:g}"
    _require(0 <= decay <= LARGEST_FACTOR, "optimizer.weight_decay", decay, expected)
    expected = f"{positive}, or null for no clipping"
    _require(clip is None or 0 < clip <= LARGEST_FACTOR, "optimizer.clip", clip, expected)
    speed = optimizer.balancing_speed
    _require(0 <= speed < 1, "optimizer.balancing_speed", speed, "0 to below 1")
    warmup, expected = schedule.warmup, f"0 to {MOST_STEPS}"
    _require(0 <= warmup <= MOST_STEPS, "optimizer.schedule.warmup", warmup, expected)
    _require(0 <= schedule.floor <= 1, "optimizer.schedule.floor", schedule.floor, "0 to 1")
    _require(
        0 <= schedule.decay_from < 1, "optimizer.schedule.decay_from", schedule.decay_from, "0 to below 1"
    )
    for start in schedule.drops:
        _require(0 <= start <= 1, "optimizer.schedule.drops", start, "fractions of the run, 0 to 1")
    for factor in schedule.drops.values():
        expected = f"multipliers of 0 to {LARGEST_FACTOR:g}"
        _require(0 <= factor <= LARGEST_FACTOR, "optimizer.schedule.drops", factor, expected)


def check_logging(logging: LoggingConfig, steps: int) -> None:
    """Cadences of at least one step, milestones inside the run.

    Raises:
        UsageError: naming the value and what was expected.
    """
    for name in ("every", "checkpoint_every"):
        value = getattr(logging, name)
        _require(0 < value <= MOST_STEPS, f"logging.{name}", value, f"1 to {MOST_STEPS}")
    for milestone, step in zip(logging.milestones, milestone_steps(logging, steps), strict=True):
        expected = f"a fraction below 1, or a step from 1 to {steps}"
        _require(0 < step <= steps, "logging.milestones", milestone, expected)


def milestone_steps(logging: LoggingConfig, steps: int) -> list[int]:
    """The steps, of a run of `steps` steps, at which a checkpoint is kept; in the configuration's order."""
    return [round(each * steps) if each < 1 else int(each) for each in logging.milestones]


def check_hardware(hardware: HardwareConfig, training: TrainingConfig) -> None:
    """Counts that divide the batch."""
    for name in ("devices", "nodes", "threads"):
        value = getattr(hardware, name)
        _require(0 < value <= MOST_PROCESSES, f"hardware.{name}", value, f"1 to {MOST_PROCESSES}")
    for name in ("workers", "side_by_side"):
        value = getattr(hardware, name)
        _require(0 <= value <= MOST_PROCESSES, f"hardware.{name}", value, f"0 to {MOST_PROCESSES}")
    for name in ("collective_timeout", "worker_timeout"):
        value = getattr(hardware, name)
        _require(0 < value <= LONGEST_WAIT, f"hardware.{name}", value, f"1 to {LONGEST_WAIT} seconds")
    world = hardware.devices * hardware.nodes
    _require(
        world == 1 or hardware.sharding != "none",
        "hardware.devices",
        world,
        "1 where hardware.sharding is none; several devices need hardware.sharding=fsdp or hsdp",
    )
    rows = training.batch_tokens // training.sequence_length
    _require(
        rows % world == 0,
        "training.batch_tokens",
        training.batch_tokens,
        f"rows of {training.sequence_length} tokens that {world} devices can share equally",
    )
    share, part = rows // world, hardware.rows_per_device
    _require(
        part >= 0 and (part == 0 or share % part == 0),
        "hardware.rows_per_device",
        part,
        f"a divisor of each device's {share} rows, or 0 for all of them",
    )
    sublayers, most = hardware.recompute_sublayers, 2 * MOST_LAYERS
    _require(0 <= sublayers <= most, "hardware.recompute_sublayers", sublayers, f"0 to {most}")
    _require(
        not (hardware.compile and hardware.recompute == "block"),
        "hardware.compile",
        hardware.compile,
        "false with hardware.recompute=block, whose hooks no compiled graph can hold",
    )
    elsewhere = {"gpu": "compiled", "cpu": "triton"}[hardware.accelerator]
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    _require(
        hardware.operations != elsewhere or (elsewhere == "triton" and interpreted),
        "hardware.operations",
        hardware.operations,
        f"auto, eager or reference with hardware.accelerator={hardware.accelerator}",
    )


def check_launcher(launcher: LauncherConfig) -> None:
    """Times and counts that a scheduler can have."""
    if not isinstance(launcher, SlurmConfig):
        return
    _require(
        re.fullmatch(DURATION, launcher.time) is not None,
        "launcher.time",
        launcher.time,
        "a number and a unit, such as 90m, 24h or 2d",
    )
    limit = 60 * minutes(launcher.time)
    _require(limit <= 60 * LONGEST_JOB, "launcher.time", launcher.time, "at most 365d")
    _require(
        0 < launcher.grace < limit,
        "launcher.grace",
        launcher.grace,
        f"1 to less than launcher.time = {limit} s",
    )
    _require(
        0 <= launcher.requeues <= MOST_STEPS, "launcher.requeues", launcher.requeues, f"0 to {MOST_STEPS}"
    )
    expected = f"a positive number of seconds, at most {LONGEST_WAIT}"
    _require(0 < launcher.poll <= LONGEST_WAIT, "launcher.poll", launcher.poll, expected)


def minutes(duration: str) -> int:
    """Minutes of a duration such as 90m, 24h or 2d."""
    return int(duration[:-1]) * {"m": 1, "h": 60, "d": 24 * 60}[duration[-1]]


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}: expected {expected}")

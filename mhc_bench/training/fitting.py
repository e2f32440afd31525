"""Train one run from wherever it stands to `training.json` and the final model."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from transformers.utils import logging as transformers_logging

from mhc_bench.config import check_same_run, save_run_config
from mhc_bench.config.identity import run_id
from mhc_bench.config.schema import RunConfig
from mhc_bench.data import open_source
from mhc_bench.data.module import BatchPlan, TokenData
from mhc_bench.data.source import TokenSource
from mhc_bench.errors import RunError, StoppedError
from mhc_bench.model import (
    FLOPS_RULE,
    count_parameters,
    flops_per_token,
    save_model,
    use_operations,
    weight_digest,
)
from mhc_bench.model.saving import FINAL, find_damage
from mhc_bench.processor import processor
from mhc_bench.stopping import StopNotice
from mhc_bench.training.balancing import ExpertBalancing
from mhc_bench.training.checkpoints import (
    Checkpoints,
    checkpoint_folders,
    clear_away,
    count_start,
    forget_after,
    newest_good,
)
from mhc_bench.training.checks import check_run, launched, world_size
from mhc_bench.training.clock import Clock
from mhc_bench.training.launch import launch_ranks
from mhc_bench.training.loggers import logger_arguments, make_logger
from mhc_bench.training.module import ResidualTraining, build_model
from mhc_bench.training.numerics import numerics
from mhc_bench.training.operations import settle
from mhc_bench.training.preemption import Preemption
from mhc_bench.training.probing import Probes
from mhc_bench.training.recorder import Recorder
from mhc_bench.training.sharding import make_strategy, sharding_plan
from mhc_bench.training.summary import TrainingSummary, history_fields, read_summary, write_summary
from mhc_bench.training.validation import Validation

GOES_ON = "the same command goes on from there"
KNOWN_WARNINGS = (
    r".*does not have many workers.*",
    r".*your dataloader is not resumable.*",
    r".*`ModelParallelStrategy` is an experimental.*",
    r".*exists and is not empty.*",
    r".*returned a view tensor.*",
    r".*DTensor random operators may not have complete support.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*The \.grad attribute of a Tensor that is not a leaf.*",
    r".*The `srun` command is available.*",
    r".*torch\.distributed is disabled, unavailable or uninitialized.*",
)
"""About what is meant: workers, a position that comes from the step, FSDP2, streams expanded as views,
buffers of sharded modules made anew (the parameters are filled afterwards), what compilation looks at, a
machine that has SLURM and a run that does not use it, and checkpoints of one process."""


def fit(config: RunConfig, run_dir: Path, *, quiet: bool = False) -> TrainingSummary:
    """Train a run, or go on with it, or return what is already there.

    Resumes from the newest good checkpoint. Where a run needs several ranks and this process is none of them,
    they are started from here.

    Args:
        config: the resolved run.
        run_dir: its folder; `config.yaml` is written there.
        quiet: show no progress bar (none is shown outside a terminal either).

    Raises:
        UsageError: the configuration cannot be trained here, or the folder belongs to another run; nothing
            has been written.
        RunError: checkpoints are damaged, or a rank failed.
        StoppedError: a stop signal came; a checkpoint of the last step is there.
    """
    check_run(config)
    check_same_run(config, run_dir)
    if (done := read_summary(run_dir)) is not None:
        return done
    source = open_source(config.data)
    config = prepare(config, source, run_dir, quiet)
    if world_size(config) > 1 and not launched():
        launch_ranks(config, run_dir, quiet)
    else:
        train_rank(config, source, run_dir, quiet)
    done = read_summary(run_dir)
    if done is None:
        raise RunError(f"{run_dir}: training ended without training.json")
    return done


def prepare(config: RunConfig, source: TokenSource, run_dir: Path, quiet: bool) -> RunConfig:
    """Everything that can be refused is, then the folder gets its `config.yaml`, with the hardware of now.

    Returns:
        `config` with its operations settled.
    """
    model = build_model(config, source)
    use_operations(model, config.hardware.operations)
    for logger in config.logging.loggers:
        logger_arguments(logger, run_dir)
    source.train_row(config.seed, 0, config.training.sequence_length + 1)
    if config.data.validation_split == "selection":
        source.validation_rows(config.training.sequence_length + 1)
    save_run_config(config, run_dir)
    return settle(config, model, run_dir, quiet)


def train_rank(config: RunConfig, source: TokenSource, run_dir: Path, quiet: bool) -> None:
    """One rank's part of a run, start to end."""
    with processor(config.hardware.threads), lightning_quiet():
        L.seed_everything(config.seed, verbose=False)
        try:
            with StopNotice() as notice:
                _train(config, source, run_dir, quiet, notice)
        finally:
            if dist.is_initialized() and not launched():
                dist.destroy_process_group()


def _train(config: RunConfig, source: TokenSource, run_dir: Path, quiet: bool, notice: StopNotice) -> None:
    checkpoint = checkpoint_to_load(config, run_dir)
    module, clock = ResidualTraining(config, source), Clock()
    recorder = Recorder(config, run_dir, clock, quiet)
    preemption = Preemption(notice, clock)
    trainer = make_trainer(config, run_dir, recorder, clock, [preemption])
    restarts = 0
    if trainer.is_global_zero:
        restarts = count_start(run_dir)
    try:
        trainer.fit(
            module,
            datamodule=TokenData(config, source),
            ckpt_path=checkpoint,
            weights_only=True,
        )
        if preemption.stopped:
            raise StoppedError(f"stopped after step {clock.step} of {config.training.steps}: {GOES_ON}")
        finish(config, module, recorder, run_dir, restarts)
        if notice.told:
            raise StoppedError(f"stopped after training: {GOES_ON}")
    except SIGTERMException:
        raise StoppedError(f"stopped before training began: {GOES_ON}") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{checkpoint} cannot be loaded ({reason}): remove it to start over") from error
    finally:
        recorder.close()


def checkpoint_to_load(config: RunConfig, run_dir: Path) -> Path | None:
    """What this rank resumes from. Rank 0 reads and checks whole files; its choice counts for all.

    Raises:
        RunError: there are several ranks, and rank 0 found all checkpoints damaged: it has removed them, but
            the other ranks, which saw them, would wait to read one.
    """
    there = next(iter(checkpoint_folders(run_dir)), None)
    if int(os.environ.get("RANK", "0")) != 0:
        return there
    good = newest_good(run_dir, run_id(config))
    if there is not None and good is None and world_size(config) > 1:
        forget_after(run_dir, 0)
        raise RunError(f"all checkpoints in {run_dir} were damaged: removed; the same command starts over")
    return good


def make_trainer(
    config: RunConfig, run_dir: Path, recorder: Recorder, clock: Clock, stopping: Sequence[L.Callback] = ()
) -> L.Trainer:
    """The Trainer, with everything that Lightning would add by itself turned off.

    Args:
        stopping: what may end training early, asked before the checkpoint of a step.
    """
    training, logs = config.training, config.logging
    return L.Trainer(
        accelerator=config.hardware.accelerator,
        devices=config.hardware.devices,
        num_nodes=config.hardware.nodes,
        strategy=make_strategy(config),
        # a job of one process is none of SLURM's ranks, whatever its environment says
        plugins=[] if launched() else [LightningEnvironment()],
        max_steps=training.steps,
        max_epochs=-1,
        accumulate_grad_batches=BatchPlan.of(config, world_size(config)).parts,
        logger=[make_logger(logger, run_dir) for logger in logs.loggers],
        callbacks=[
            recorder,
            ExpertBalancing(config.optimizer.balancing_speed, training.probe_every, run_dir, clock, recorder),
            Validation(training.validate_every, clock, recorder.report_validation),
            Probes(training.probe_every, run_dir, clock, recorder),
            *stopping,
            Checkpoints(config, run_dir, clock, recorder.history),
        ],
        default_root_dir=run_dir,
        use_distributed_sampler=False,  # Lightning's own sampler would shuffle
        log_every_n_steps=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        inference_mode=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def finish(
    config: RunConfig, module: ResidualTraining, recorder: Recorder, run_dir: Path, restarts: int
) -> None:
    """Save the final model, write the summary, remove what was kept to resume from; collective."""
    model, history = module.model, recorder.history
    final = weight_digest(model)
    # a process that was killed before the summary may have saved it
    if not largest_over_ranks(module.global_rank == 0 and not find_damage(run_dir / FINAL, final)):
        save_model(model, module.source.tokenizer, run_dir / FINAL)
    memory = largest_over_ranks(peak_memory())
    if module.global_rank == 0:
        summary = TrainingSummary(
            **history_fields(history, config.training.batch_tokens),
            parameters=count_parameters(model),
            flops_per_token=flops_per_token(model, config.training.sequence_length),
            flops_rule=FLOPS_RULE,
            data_identity=module.source.identity,
            shared_weight_digest=module.shared_digest,
            start_digest=module.start_digest,
            weight_digest=final,
            restarts=restarts,
            peak_memory_bytes=memory,
            threads=config.hardware.threads,
            world_size=world_size(config),
            gpus=gpu_names(config),
            sharding=sharding_plan(config),
            numerics=numerics(config),
        )
        write_summary(summary, run_dir)
        clear_away(run_dir)
    if dist.is_initialized():
        dist.barrier()  # the other ranks read the summary next


def peak_memory() -> int:
    """Bytes: of the tensors on a GPU, of the whole process on a CPU."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def largest_over_ranks(value: int) -> int:
    """The largest of the ranks' values; collective."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value
    values: list[Any] = [0] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return int(max(values))


def gpu_names(config: RunConfig) -> list[str]:
    """The GPUs of this node that the run used."""
    if config.hardware.accelerator != "gpu":
        return []
    return [torch.cuda.get_device_name(index) for index in range(config.hardware.devices)]


@contextlib.contextmanager
def lightning_quiet() -> Iterator[None]:
    """Lightning's greetings, transformers' bars and the warnings about what is meant are left out."""
    bars = transformers_logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        transformers_logging.disable_progress_bar()
        for pattern in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=pattern)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()

"""The state to resume from: one layout, read by any number of ranks and with any sharding.

shard-00001-model-00001-of-00001.safetensors   one of each rank: its part of weights and moments, with offsets
trainer.pt                                     steps, schedule, history, optimizer's settings: plain values
manifest.json                                  SHA-256 of these files; whose and which state it is

torch's distributed checkpoint writes and reads the tensors: its default format holds pickles, safetensors run
no code. Lightning's AsyncCheckpointIO does not serve: its FSDP2 strategy passes by any CheckpointIO. Nor does
torch's `async_save`, which failed in 2.13 on four ranks of which some hold no row of a parameter.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mhc_bench.config.identity import run_id
from mhc_bench.files import file_digest, rename_on_disk, write_json
from mhc_bench.model.digests import persistent_tensors

TRAINER = "trainer.pt"
MANIFEST = "manifest.json"

Tensors = dict[str, Any]
"""`weights`: name -> tensor; `optimizer`: parameter name -> name -> tensor. Tensors may be DTensors."""


class PortableState(Strategy):
    """What a strategy needs to keep its state in the layout of this module."""

    background: Executor | None = None
    """Of one thread, which writes while training goes on; None to write at once."""
    pending: Future[None] | None = None
    patience: timedelta | None = None
    """How long a rank waits for the others in a collective; None for torch's own."""
    _group: dist.ProcessGroup | None = None

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """The optimizer must be there: tensors are read into place."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """`load_checkpoint` has restored it."""
        return False

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Parameters (shared ones once) and persistent buffers."""
        return dict(persistent_tensors(self._decoder()))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """State and settings by parameter name."""
        return get_optimizer_state_dict(self._decoder(), getattr(optimizer, "_optimizer", optimizer))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write the folder `filepath`, or begin to; collective. An earlier writing is waited for."""
        self.wait()
        (optimizer,) = checkpoint.pop("optimizer_states")
        tensors = {"weights": checkpoint.pop("state_dict"), "optimizer": optimizer["state"]}
        rest = io.BytesIO()
        torch.save(checkpoint | {"param_groups": optimizer["param_groups"]}, rest)
        folder, group = Path(filepath), self._gloo()
        if self.background is None:
            write_state(folder, tensors, rest.getvalue(), group, self._owner())
        else:
            copy = copied(tensors)
            self.pending = self.background.submit(
                write_state, folder, copy, rest.getvalue(), group, self._owner()
            )

    def load_checkpoint(
        self, checkpoint_path: str | os.PathLike[str], weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read rank 0's `checkpoint_path` into place; collective. Returns the trainer's part."""
        folder = Path(self.broadcast(checkpoint_path))
        (optimizer,) = self.optimizers
        return read_state(folder, self._decoder(), optimizer, self._gloo())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Nothing is left to do."""

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Nothing is left to do."""

    def wait(self) -> None:
        """Until nothing is being written. Raises what the writing raised."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    def _decoder(self) -> PreTrainedModel:
        assert self.lightning_module is not None
        model = self.lightning_module.model
        assert isinstance(model, PreTrainedModel)
        return model

    def _owner(self) -> str:
        config: Any = self.lightning_module.config if self.lightning_module else None
        return run_id(config)

    def _gloo(self) -> dist.ProcessGroup | None:
        """A group for the writing thread alone: training has the default one in use at the same time."""
        if self._group is None and dist.is_initialized():
            self._group = dist.new_group(backend="gloo", timeout=self.patience)
        return self._group


def copied(tensors: Tensors) -> Tensors:
    """The same on the CPU, in memory of its own."""
    return {
        name: copied(each) if isinstance(each, dict) else each.detach().to("cpu", copy=True)
        for name, each in tensors.items()
    }


def write_state(
    folder: Path, tensors: Tensors, rest: bytes, group: dist.ProcessGroup | None, owner: str
) -> None:
    """Write under a temporary name, then give the folder its own; collective over `group`.

    Args:
        owner: the `run_id` of the run whose state it is.
    """
    unfinished = folder.with_name(f".{folder.name}.tmp")
    rank = 0 if group is None else dist.get_rank()
    if rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / TRAINER).write_bytes(rest)
    if group is not None:
        dist.barrier(group)
    writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
    save(tensors, storage_writer=writer, process_group=group, no_dist=group is None)
    files = manifest(unfinished, rank, group)
    if rank == 0:
        write_json(unfinished / MANIFEST, {"files": files, "run": owner, "name": folder.name})
        rename_on_disk(unfinished, folder)


def manifest(folder: Path, rank: int, group: dist.ProcessGroup | None) -> dict[str, str]:
    """On rank 0 the SHA-256 of every file, each computed by the rank that wrote it; collective."""
    own = [*folder.glob(f"shard-{rank + 1:05d}-*"), *([folder / TRAINER] if rank == 0 else [])]
    found: list[Any] = [{path.name: file_digest(path) for path in own}]
    if group is not None:
        mine, found = found[0], [None] * dist.get_world_size()
        dist.gather_object(mine, found if rank == 0 else None, group=group)
    return {name: digest for each in found if each for name, digest in each.items()}


def read_state(
    folder: Path, model: PreTrainedModel, optimizer: Optimizer, group: dist.ProcessGroup | None
) -> dict[str, Any]:
    """Read weights and moments into place, each rank its own; returns the trainer's part; collective."""
    rest: dict[str, Any] = torch.load(folder / TRAINER, weights_only=True)
    reader = HuggingFaceStorageReader(str(folder))
    saved = reader.read_metadata().state_dict_metadata
    every: Any = get_optimizer_state_dict(model, optimizer)["state"]
    # a parameter that has had no gradient yet has no state, and must get none
    state = {
        name: each for name, each in every.items() if all(f"optimizer.{name}.{key}" in saved for key in each)
    }
    tensors = {"weights": dict(persistent_tensors(model)), "optimizer": state}
    load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)
    content = {"state": state, "param_groups": rest.pop("param_groups")}
    set_optimizer_state_dict(model, optimizer, content, options=StateDictOptions(strict=False))
    return rest

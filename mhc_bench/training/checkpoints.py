"""Checkpoints to resume from: whole or absent, checked before use, the last two kept.

checkpoints/step-00000200/state.ckpt      one file, or a folder of shards with FSDP
checkpoints/step-00000200/manifest.json   SHA-256 of every file; written before the folder gets its name
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import lightning as L

from mhc_bench.errors import RunError
from mhc_bench.files import write_json
from mhc_bench.provenance import file_digest
from mhc_bench.training.clock import Clock
from mhc_bench.training.history import History

FOLDER = "checkpoints"
STATE = "state.ckpt"
MANIFEST = "manifest.json"
STARTS = "starts.json"
KEPT = 2

log = logging.getLogger(__name__)


def checkpoint_folders(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, newest first, damaged ones too."""
    return sorted((run_dir / FOLDER).glob("step-*"), reverse=True)


def checkpoint_step(folder: Path) -> int:
    """The step after which a checkpoint was taken."""
    return int(folder.name.removeprefix("step-"))


def newest_good(run_dir: Path, sharded: bool) -> Path | None:
    """The newest undamaged checkpoint's folder, or None for a run that has none.

    Raises:
        RunError: all are damaged, or the newest is of the other layout.
    """
    folders = checkpoint_folders(run_dir)
    for folder in folders:
        if damage := find_damage(folder):
            log.warning("%s is damaged (%s): falling back to the one before", folder, damage)
            continue
        if (folder / STATE).is_dir() != sharded:
            raise RunError(
                f"{folder} was written {'without' if sharded else 'with'} FSDP2: resume with the hardware it "
                f"began on, or remove {run_dir / FOLDER} to start over"
            )
        return folder
    if folders:
        raise RunError(f"all checkpoints in {run_dir / FOLDER} are damaged: remove that folder to start over")
    return None


def find_damage(folder: Path) -> str:
    """What is wrong with a checkpoint; empty where nothing is."""
    try:
        files: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"no readable {MANIFEST}"
    for name, digest in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_digest(folder / name) != digest:
            return f"{name} differs from its SHA-256"
    return ""


def remove_resume_files(run_dir: Path) -> None:
    """Remove everything to resume from, once the final model stands."""
    for folder in checkpoint_folders(run_dir):
        shutil.rmtree(folder)
    (run_dir / FOLDER / STARTS).unlink(missing_ok=True)


def remove_unfinished(run_dir: Path) -> None:
    """Remove what a killed process left half-written, by the names that unfinished files have."""
    for path in [
        *run_dir.glob(".*.tmp"),
        *(run_dir / FOLDER).glob(".*.tmp"),
        *(run_dir / FOLDER).glob(".*.old"),
    ]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def count_start(run_dir: Path) -> int:
    """Note one more start of this run; returns how many there were before."""
    path = run_dir / FOLDER / STARTS
    try:
        before = int(json.loads(path.read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        before = 0
    write_json(path, {"starts": before + 1})
    return before


class Checkpoints(L.Callback):
    """Last of the callbacks: takes a checkpoint every `every` steps and after the last one."""

    def __init__(self, every: int, run_dir: Path, clock: Clock, history: History) -> None:
        self.every, self.run_dir, self.clock, self.history = every, run_dir, clock, history

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what lies after the step that the run resumed from."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            for folder in checkpoint_folders(self.run_dir):
                if checkpoint_step(folder) > trainer.global_step:
                    shutil.rmtree(folder)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save where it is time; a step that was not taken leaves the last checkpoint as it is."""
        if not self.clock.stepped or self.history.diverged_step is not None:
            return
        if self.clock.step % self.every == 0 or self.clock.ending:
            with self.clock.paused():
                self.history.flush()
                self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint under a temporary name, then give it its own; collective."""
        final = self.run_dir / FOLDER / f"step-{self.clock.step:08d}"
        unfinished = final.with_name(f".{final.name}.tmp")
        if trainer.is_global_zero:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        trainer.strategy.barrier()
        trainer.save_checkpoint(unfinished / STATE)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            write_json(unfinished / MANIFEST, manifest(unfinished, self.clock.step))
            unfinished.rename(final)
            for old in checkpoint_folders(self.run_dir)[KEPT:]:
                shutil.rmtree(old)


def manifest(folder: Path, step: int) -> dict[str, Any]:
    """The SHA-256 of every file of a checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {"step": step, "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files}}

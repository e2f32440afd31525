"""Checkpoints to resume from: whole or absent, checked before use; which of them are kept.

checkpoints/step-00000200/        a state as `mhc_bench.training.state` writes it
checkpoints/milestone-00000200    links to the checkpoints that stay when the run has ended
checkpoints/best
checkpoints/diverged-00000123     for study: the state before the step that was not finite, and not taken
"""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning as L

from mhc_bench.config.check import milestone_steps
from mhc_bench.config.schema import RunConfig
from mhc_bench.errors import RunError
from mhc_bench.files import PROGRESS_FILE, file_digest, remove, write_json
from mhc_bench.model.saving import FINAL
from mhc_bench.training.clock import Clock
from mhc_bench.training.history import History
from mhc_bench.training.state import MANIFEST, TRAINER, PortableState
from mhc_bench.training.summary import SUMMARY_FILE

FOLDER = "checkpoints"
STARTS = "starts.json"
BEST = "best"
DIVERGED = "diverged"
KEPT = 2
"""Checkpoints to resume from: where the last is damaged, there is one before."""

log = logging.getLogger(__name__)


def checkpoint_folders(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, newest first, damaged ones too."""
    return sorted((run_dir / FOLDER).glob("step-*"), reverse=True)


def checkpoint_step(folder: Path) -> int:
    """The step after which a checkpoint was taken."""
    return int(folder.name.removeprefix("step-"))


def newest_good(run_dir: Path, owner: str) -> Path | None:
    """The newest checkpoint's folder that is whole and the run's own; None where there is none.

    Args:
        owner: `run_id` of the run.

    Raises:
        RunError: a file cannot be read although it is there. It may be readable later.
    """
    for folder in checkpoint_folders(run_dir):
        if not (damage := find_damage(folder, owner)):
            return folder
        log.warning("%s is of no use (%s): going on from before it", folder, damage)
    return None


def find_damage(folder: Path, owner: str) -> str:
    """What is wrong with a checkpoint of the run `owner`; empty where nothing is.

    Raises:
        RunError: a file cannot be read although it is there.
    """
    try:
        return _find_damage(folder, owner)
    except OSError as error:
        raise RunError(f"{folder} cannot be read ({error.strerror}): nothing was changed") from error


def _find_damage(folder: Path, owner: str) -> str:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, run, name = dict(content["files"]), content.get("run"), content.get("name")
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return f"no readable {MANIFEST}"
    if run != owner:
        return "it is another run's"
    if name != folder.name:
        return f"it was written as {name}"
    for name in (TRAINER, *files):
        if not (folder / name).is_file():
            return f"{name} is missing"
    with ThreadPoolExecutor() as pool:
        found = pool.map(file_digest, [folder / name for name in files])
        for (name, digest), actual in zip(files.items(), found, strict=True):
            if actual != digest:
                return f"{name} differs from its SHA-256"
    return ""


def links(run_dir: Path) -> list[Path]:
    """The names of checkpoints that stay."""
    return [path for path in (run_dir / FOLDER).glob("*") if path.is_symlink()]


def keep(folder: Path, name: str) -> None:
    """Let `name` beside a checkpoint's folder stand for it from now on."""
    fresh = folder.with_name(f".{name}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(folder.with_name(name))


def prune(run_dir: Path, newest: int) -> None:
    """Remove all checkpoints but the newest ones and those that stay."""
    for link in links(run_dir):
        if not link.exists():
            link.unlink()
    staying = {link.resolve().name for link in links(run_dir)}
    for folder in checkpoint_folders(run_dir)[newest:]:
        if folder.name not in staying:
            shutil.rmtree(folder)


def forget_after(run_dir: Path, step: int) -> None:
    """Remove the checkpoints of later steps."""
    for folder in checkpoint_folders(run_dir):
        if checkpoint_step(folder) > step:
            shutil.rmtree(folder)


def clear_away(run_dir: Path) -> None:
    """Remove all that was only there while the run trained, once `training.json` stands; safe to repeat."""
    prune(run_dir, 0)
    (run_dir / FOLDER / STARTS).unlink(missing_ok=True)
    (run_dir / PROGRESS_FILE).unlink(missing_ok=True)


def put_back(run_dir: Path, starts: int) -> None:
    """Let a trained run train again, which was begun `starts` times; its final model goes first."""
    remove(run_dir / FINAL)
    write_json(run_dir / FOLDER / STARTS, {"starts": starts})
    (run_dir / SUMMARY_FILE).unlink()


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
    """Last of the callbacks: takes a checkpoint every `every` steps, at milestones and after the last."""

    def __init__(self, config: RunConfig, run_dir: Path, clock: Clock, history: History) -> None:
        self.every, self.keep_best = config.logging.checkpoint_every, config.logging.keep_best
        self.milestones = milestone_steps(config.logging, config.training.steps)
        self.run_dir, self.clock, self.history = run_dir, clock, history
        self.saved_step = 0
        """Of the last checkpoint, perhaps still being written."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what lies after the step that the run resumed from, and name that checkpoint."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            forget_after(self.run_dir, trainer.global_step)
        self._take_up(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Name the last checkpoint where the run resumed from it: nothing was left to train."""
        self._take_up(trainer)

    def _take_up(self, trainer: L.Trainer) -> None:
        """The process before may have been killed between a checkpoint and its names."""
        self.saved_step = trainer.global_step
        self._tidy(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save where it is time; a step that was not taken leaves the last checkpoint as it is."""
        strategy = trainer.strategy
        assert isinstance(strategy, PortableState)
        if strategy.pending is not None and strategy.pending.done():
            self.wait(trainer)
        if not self.clock.stepped:
            return
        if self.history.diverged_step is not None:
            self._save_for_study(trainer, self.history.diverged_step)
            return
        step = self.clock.step
        if step % self.every == 0 or step in self.milestones or self.clock.ending:
            with self.clock.paused():
                self.history.flush()
                self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing is being written when training is over; no rank ends before the last checkpoint stands."""
        self.wait(trainer)
        trainer.strategy.barrier()

    def save(self, trainer: L.Trainer) -> None:
        """Take a checkpoint of the last step unless there is one; collective. Call `History.flush` before.

        With `logging.checkpoint_async` it may stand only when `wait` has returned.
        """
        self.wait(trainer)
        if self.saved_step == self.clock.step:
            return
        self.saved_step = self.clock.step
        trainer.save_checkpoint(self._folder())
        self._tidy(trainer)

    def _save_for_study(self, trainer: L.Trainer, step: int) -> None:
        """Weights and moments before `step`, which was not taken; never resumed from."""
        self.wait(trainer)
        folder = self.run_dir / FOLDER / f"{DIVERGED}-{step:08d}"
        if trainer.is_global_zero and folder.exists():
            shutil.rmtree(folder)  # of an end that was cut off before it was written down
        trainer.save_checkpoint(folder)

    def wait(self, trainer: L.Trainer) -> None:
        """Until the last checkpoint stands. Raises what its writing raised."""
        strategy = trainer.strategy
        assert isinstance(strategy, PortableState)
        if strategy.pending is not None:
            with self.clock.paused():
                strategy.wait()
                self._tidy(trainer)

    def _folder(self) -> Path:
        return self.run_dir / FOLDER / f"step-{self.saved_step:08d}"

    def _tidy(self, trainer: L.Trainer) -> None:
        """Name the last checkpoint if it shall stay, once it stands; remove the ones before."""
        folder = self._folder()
        if not (trainer.is_global_zero and folder.exists()):
            return
        if self.saved_step in self.milestones:
            keep(folder, f"milestone-{self.saved_step:08d}")
        if self.keep_best and self._is_best():
            keep(folder, BEST)
        prune(self.run_dir, KEPT)

    def _is_best(self) -> bool:
        """Whether no kept checkpoint has a lower validation loss than the last one."""
        losses = {int(point["step"]): point["loss"] for point in self.history.validation}
        best = self.run_dir / FOLDER / BEST
        before = losses.get(checkpoint_step(best.resolve())) if best.exists() else None
        mine = losses.get(self.saved_step)
        return mine is not None and (before is None or mine < before)

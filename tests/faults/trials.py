"""One fault, the next `mhc-bench run`, and whether anything is different from a run that met no fault."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from forked_suite import Fault, Ground, SmallDisk, contents, differences, ended, no_fault, stamps
from injected import (
    BEGINS,
    DAMAGES,
    DISK_FULL,
    ENDS,
    HARMS,
    READ_ONLY,
    Damage,
    Harm,
    both,
    clock_backwards,
    die,
    in_evaluation,
    in_step,
    models_swapped,
    noted,
    on_write,
    small_files,
    tell,
    tell_parent,
)

from mhc_bench.model.saving import FINAL
from mhc_bench.stopping import STOP_SIGNALS
from mhc_bench.training.checkpoints import checkpoint_folders

STEPS = 7
REQUESTS = 6
"""At least so many answers are reported in an evaluation."""
WORKER_WRITES, RUNNER_WRITES = 160, 60
"""About so many changes of the file system make up one run, and a suite without its runs."""
SMALLEST_DISK, LARGEST_DISK = 200_000, 4_000_000
"""Bytes that are left: from less than one checkpoint to nearly all that the suite needs."""


@dataclass(frozen=True)
class Trial:
    """A fault of one kind, as drawn; `bring` does it and gives the exit codes that may follow."""

    kind: str
    detail: str
    bring: Callable[[Ground], None]
    then: Fault = no_fault
    """What the next run meets."""
    again: tuple[str, ...] = ()
    """Variants whose run has lost what it had finished."""


class NotSurvivedError(AssertionError):
    """What a fault has left behind."""


def survive(trial: Trial, ground: Ground, expected: dict[str, object]) -> None:
    """Bring the fault, run again, compare.

    Raises:
        NotSurvivedError: the next run did not finish, something finished was redone, or something differs.
    """
    trial.bring(ground)
    before = stamps(ground.runs)
    code = ground.run(trial.then)
    if code:
        raise NotSurvivedError(f"the next run ended with exit code {code}\n{ground.output()[-4000:]}")
    after = stamps(ground.runs)
    lost = [f"/{variant}/" for variant in trial.again]
    redone = [
        name
        for name, stamp in before.items()
        if after.get(name) != stamp and not any(part in name for part in lost)
    ]
    if redone:
        raise NotSurvivedError(f"finished and redone: {', '.join(redone)}")
    if wrong := differences(contents(ground), expected):
        raise NotSurvivedError("; ".join(wrong))


def disturbed(
    kind: str, detail: str, fault: Callable[[Ground], Fault], codes: set[int], then: Fault = no_fault
) -> Trial:
    """A trial of one `mhc-bench run` under a fault, which must end with one of `codes`."""

    def bring(ground: Ground) -> None:
        code = ground.run(fault(ground))
        if code not in codes:
            raise NotSurvivedError(f"under the fault: exit code {code}\n{ground.output()[-4000:]}")

    return Trial(kind, detail, bring, then)


KILLED = -signal.SIGKILL


def killed_in_a_step(draw: random.Random) -> Trial:
    """A worker is killed in a training step; each of the suite's, in the same one."""
    step = draw.randrange(STEPS)
    return disturbed("killed in a step", f"step {step + 1}", lambda _: in_step(step, die), {1})


def killed_at_a_write(draw: random.Random) -> Trial:
    """A worker is killed as it is about to change a file: in checkpoints, tables, evaluation, record."""
    write = draw.randrange(WORKER_WRITES)
    fault = lambda ground: on_write("worker", ground.runs, write, die)  # noqa: E731
    return disturbed("killed at a write", f"write {write}", fault, {0, 1})


def killed_in_the_evaluation(draw: random.Random) -> Trial:
    """A worker is killed between two answers."""
    answer = draw.randrange(REQUESTS)
    fault = in_evaluation(answer, die)
    return disturbed("killed in the evaluation", f"answer {answer}", lambda _: fault, {0, 1})


def suite_killed_at_a_write(draw: random.Random) -> Trial:
    """`mhc-bench run` itself is killed: measuring, starting runs, publishing, in the collation."""
    write = draw.randrange(RUNNER_WRITES)
    fault = lambda ground: on_write("runner", ground.root, write, die)  # noqa: E731
    return disturbed("suite killed at a write", f"write {write}", fault, {0, KILLED})


def killed_at_any_time(draw: random.Random) -> Trial:
    """`mhc-bench run` is killed after some time, with or without its workers."""
    seconds, group = draw.uniform(0, 6), draw.random() < 0.5

    def bring(ground: Ground) -> None:
        child = ground.start()
        time.sleep(seconds)
        try:
            workers = children_of(child) if group else []
            os.kill(child, signal.SIGKILL)
            for each in workers:
                os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            pass
        ended(child)

    return Trial("killed at any time", f"{seconds:.2f} s, workers too: {group}", bring)


def children_of(parent: int) -> list[int]:
    """Processes that another one has started."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def told_to_stop(draw: random.Random) -> Trial:
    """A worker gets a stop signal, as from SLURM before a time limit or at a preemption."""
    number, step = draw.choice(STOP_SIGNALS), draw.randrange(STEPS)
    fault = in_step(step, tell(number))
    return disturbed("preempted", f"{number.name} in step {step + 1}", lambda _: fault, {75})


def suite_told_to_stop(draw: random.Random) -> Trial:
    """`mhc-bench run` gets SIGTERM, and passes it on."""
    step = draw.randrange(STEPS)
    fault = in_step(step, tell_parent(signal.SIGTERM))
    return disturbed("suite told to stop", f"SIGTERM in step {step + 1}", lambda _: fault, {75})


def disk_full(draw: random.Random) -> Trial:
    """From some write on there is no space left, for a worker or for the suite."""
    role = draw.choice(["worker", "worker", "runner"])
    write = draw.randrange(WORKER_WRITES if role == "worker" else RUNNER_WRITES)
    fault = lambda ground: on_write(role, ground.root, write, DISK_FULL, then_on=True)  # noqa: E731
    return disturbed("disk full", f"{role}, from write {write}", fault, {0, 1})


def disk_full_for_once(draw: random.Random) -> Trial:
    """One write fails; somebody then makes room."""
    write = draw.randrange(WORKER_WRITES)
    fault = lambda ground: on_write("worker", ground.root, write, DISK_FULL)  # noqa: E731
    return disturbed("disk full for once", f"worker, write {write}", fault, {0, 1})


def file_cut_short(draw: random.Random) -> Trial:
    """Writing fails in the middle of a file."""
    limit = draw.choice([1, 100, 1_000, 10_000, 100_000, 300_000])
    return disturbed("file cut short", f"at {limit} bytes", lambda _: small_files(limit), {0, 1})


def disk_really_full(draw: random.Random) -> Trial:
    """A file system with little space left, which then gets more. Needs root."""
    left = draw.randrange(SMALLEST_DISK, LARGEST_DISK)

    def bring(ground: Ground) -> None:
        with SmallDisk(ground.root / "runs", 32) as disk:
            filler = disk.place / "filler"
            filler.write_bytes(bytes(32 * 2**20 - left))
            code = ground.run()
            if code not in (0, 1):
                raise NotSurvivedError(f"on the full disk: exit code {code}\n{ground.output()[-4000:]}")
            filler.unlink()
            keep(ground, disk)
        (ground.root / "kept").rename(ground.runs)

    return Trial("disk really full", f"{left} bytes left", bring)


def really_read_only(draw: random.Random) -> Trial:
    """A run is killed; then its file system can be read only for one `mhc-bench run`. Needs root."""
    step = draw.randrange(STEPS)

    def bring(ground: Ground) -> None:
        with SmallDisk(ground.root / "runs", 32) as disk:
            ground.run(in_step(step, die))
            disk.read_only(True)
            code = ground.run()
            if code not in (1, 2):
                raise NotSurvivedError(f"read-only: exit code {code}\n{ground.output()[-4000:]}")
            keep(ground, disk)
        (ground.root / "kept").rename(ground.runs)

    return Trial("really read-only", f"killed in step {step + 1}", bring)


def keep(ground: Ground, disk: SmallDisk) -> None:
    """Copy what lies on a disk to where it is to be found when the disk is gone."""
    os.spawnvp(os.P_WAIT, "cp", ["cp", "-a", str(disk.place), str(ground.root / "kept")])


def read_only(draw: random.Random) -> Trial:
    """The results can be read only, for the whole of a run or from some write on."""
    role = draw.choice(["worker", "runner"])
    write = draw.choice([0, draw.randrange(WORKER_WRITES)])
    fault = lambda ground: on_write(role, ground.root, write, READ_ONLY, then_on=True)  # noqa: E731
    return disturbed("read-only", f"{role}, from write {write}", fault, {0, 1})


def damaged_checkpoint(draw: random.Random) -> Trial:
    """A run is killed, and what it would resume from is harmed."""
    damage, step = draw.choice(DAMAGES), draw.randrange(4, STEPS)
    return damaged(damage, step)


def damaged(damage: Damage, step: int) -> Trial:
    """A checkpoint harmed in one way, after a kill in the given step (from 0; from 4, there are two)."""

    def bring(ground: Ground) -> None:
        ground.run(in_step(step, die))
        own, other = (checkpoint_folders(ground.folder(name)) for name in ("mhc", "baseline"))
        damage(own, other)

    return Trial("checkpoint harmed", f"{damage.__name__}, killed in step {step + 1}", bring)


def harmed_model(draw: random.Random) -> Trial:
    """Runs are killed between training and evaluation, and a final model is harmed."""
    return harmed(draw.choice(HARMS))


def harmed(harm: Harm) -> Trial:
    """The final model of one run harmed in one way."""

    def bring(ground: Ground) -> None:
        ground.run(in_evaluation(0, die))
        harm(*(ground.folder(name) / FINAL for name in ("mhc", "baseline")))

    again = ("mhc", "baseline") if harm is models_swapped else ("mhc",)
    return Trial("final model harmed", harm.__name__, bring, again=again)


def backward_clock(draw: random.Random) -> Trial:
    """The clock of the day runs backwards; a run is killed under it and goes on under it."""
    step, speed = draw.randrange(STEPS), draw.choice([1.0, 3600.0, 1e6])
    clock, detail = clock_backwards(speed), f"{speed:g}-fold, step {step + 1}"
    return disturbed("clock backwards", detail, lambda _: both(clock, in_step(step, die)), {1}, clock)


def two_at_once(draw: random.Random) -> Trial:
    """The same command twice at the same time; in half of the trials the first is killed."""
    return at_once(draw.uniform(0, 3), draw.randrange(WORKER_WRITES) if draw.random() < 0.5 else None)


def at_once(wait: float, write: int | None, fault: Fault = no_fault) -> Trial:
    """The same command twice, `wait` seconds apart, both under `fault`.

    Args:
        write: at which change of a file the first one's workers are killed, if at any.
    """

    def bring(ground: Ground) -> None:
        journal = ground.root / "journal"
        both_meet = both(fault, noted(journal))
        killed = no_fault if write is None else on_write("worker", ground.runs, write, die)
        first = ground.start(both(both_meet, killed))
        time.sleep(wait)
        second = ground.start(both_meet)
        codes = ended(first), ended(second)
        if wrong := not_one_by_one(journal.read_text(), write is not None):
            raise NotSurvivedError(f"two at once: {wrong}")
        if codes[1] or (codes[0] and write is None):
            raise NotSurvivedError(f"two at once: exit codes {codes}\n{ground.output()[-4000:]}")

    return Trial("two at once", f"{wait:.2f} s apart, first killed at write {write}", bring)


def not_one_by_one(journal: str, killed: bool) -> str:
    """Of which runs more than one worker had hold, as `noted` tells it; empty where of none.

    Args:
        killed: some workers had no time to note their ends.
    """
    told: dict[str, list[str]] = {}
    for line in journal.splitlines():
        variant, _, what = line.partition(" ")
        told.setdefault(variant, []).append(what)
    expected = f"({BEGINS}, )*{BEGINS}(, {ENDS})?" if killed else f"{BEGINS}, {ENDS}"
    found = {variant: ", ".join(each) for variant, each in told.items()}
    return "; ".join(f"{name} {each}" for name, each in found.items() if not re.fullmatch(expected, each))


KINDS: list[Callable[[random.Random], Trial]] = [
    killed_in_a_step,
    killed_at_a_write,
    killed_in_the_evaluation,
    suite_killed_at_a_write,
    killed_at_any_time,
    told_to_stop,
    suite_told_to_stop,
    disk_full,
    disk_full_for_once,
    file_cut_short,
    disk_really_full,
    read_only,
    really_read_only,
    damaged_checkpoint,
    harmed_model,
    backward_clock,
    two_at_once,
]
MOUNTING = (disk_really_full, really_read_only)
"""Kinds that take root."""


def at_each_write(role: str) -> Iterator[tuple[int, Trial]]:
    """A process of kind `role` killed at its first change of a file, at its second, until it has no more."""
    codes: list[int] = []
    while 0 not in codes:
        number = len(codes)

        def bring(ground: Ground, number: int = number) -> None:
            codes.append(ground.run(on_write(role, ground.root, number, die)))

        yield number, Trial(f"{role} killed at each write", f"write {number}", bring)


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    return os.geteuid() == 0 and Path("/bin/mount").exists()

"""What faults are tried on: `mhc-bench run` of a suite of seconds, its two runs in processes of their own."""

from __future__ import annotations

import csv
import functools
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from forked import fork, on_ranks
from safetensors.torch import load_file

from mhc_bench import cli
from mhc_bench.config import RunConfig
from mhc_bench.errors import RunError
from mhc_bench.model.digests import digest
from mhc_bench.suite import cost, runner, worker
from mhc_bench.training import launch

SUITE = """
base: smoke
data: {base: world, validation_tokens: 256}
training: {sequence_length: 16, batch_tokens: 64, steps: 7, validate_every: 3, probe_every: 3}
evaluation: {tasks: [world_mmlu], limit: 2}
variants: [baseline, mhc]
hardware: {side_by_side: 1}
logging: {every: 2, checkpoint_every: 2, keep_best: true, milestones: [0.5], loggers: []}
"""
CHANGING = {
    *("seconds", "step_seconds", "tokens_per_second", "restarts", "peak_memory_bytes", "step_time"),
    *("train_seconds", "evaluate_seconds", "date", "start_time", "end_time", "side_files"),
    *("total_evaluation_time_seconds", "supersedes"),
}
"""Keys and columns that tell times, memory, or how often a run was begun; digests of files that hold such."""
EDITION = re.compile(r"(seed\d+)-\d+(?=\.)")
"""Of a published record after those of attempts that failed."""
APART = ("log.txt", ".lock")
TIMED = ("trainer.pt", "manifest.json")
"""They hold step times among other things: their names are compared, and the weights beside them."""
LASTING = ("record.json", "training.json", "evaluation.json", "checkpoints/final/model.safetensors")
"""What is finished when it is there."""

Fault = Callable[[str], object]
"""Told `runner` or `worker` in a process of that kind, before it begins: brings about what shall happen."""


class ForkedWorker:
    """Stands for `subprocess.Popen` of a worker, without the price of its imports."""

    def __init__(
        self, command: list[str], stdout: Any, env: dict[str, str], fault: Fault, **_: object
    ) -> None:
        folder, log = Path(command[-1]), stdout.fileno()
        self.returncode: int | None = None

        def work() -> None:
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ |= env
            fault("worker")
            end(worker.work, folder)

        self.pid = fork(work, folder / ".result.tmp")

    def poll(self) -> int | None:
        """As of `Popen`."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self) -> int:
        """As of `Popen`."""
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


def workers_of(fault: Fault) -> SimpleNamespace:
    """What the runner finds in place of `subprocess`."""
    start = functools.partial(ForkedWorker, fault=fault)
    return SimpleNamespace(Popen=start, STDOUT=subprocess.STDOUT, DEVNULL=subprocess.DEVNULL)


def end(work: Callable[..., int], *arguments: Any) -> None:
    """Leave this child with the exit code that a process of its own would have."""
    try:
        code = work(*arguments)
    except SystemExit as leaving:
        code = int(str(leaving.code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def no_fault(role: str) -> None:
    """Nothing happens."""


def ranks_by_fork(role: str) -> None:
    """The ranks of a run are forks too."""
    launch.launch_module = forked_ranks


def forked_ranks(config: RunConfig, ranks: int, module: str, arguments: list[str]) -> None:
    """Stands for `launch_module`."""
    codes = [code for code, _ in on_ranks(lambda rank: as_module(module, arguments), ranks)]
    if any(codes):
        raise RunError(f"ranks of {config.variant_name} seed {config.seed} ended with {codes}")


def as_module(module: str, arguments: list[str]) -> None:
    """What `python -m module` does in a process of its own."""
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()


@dataclass
class Ground:
    """A folder in which one suite is run, disturbed and run again."""

    root: Path
    overrides: tuple[str, ...] = ()
    children: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "tiny.yaml").write_text(SUITE)
        self.runs = self.root / "runs"

    def start(self, fault: Fault = no_fault) -> int:
        """`mhc-bench run` in a process of its own."""

        def work() -> None:
            os.setsid()
            log = os.open(self.root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.root)
            runner.subprocess = workers_of(fault)  # type: ignore[assignment]
            runner.POLL_SECONDS, cost.ROUNDS, cost.WARMUP = 0.02, 1, 1
            fault("runner")
            end(cli.main, ["run", "tiny.yaml", *self.overrides, "--runs", "runs", "--records", "records"])

        return fork(work, self.root / "result")

    def run(self, fault: Fault = no_fault, seconds: float = 240.0) -> int:
        """`mhc-bench run` to its end; its exit code."""
        return ended(self.start(fault), seconds)

    def folder(self, variant: str) -> Path:
        """Of a variant's run."""
        (found,) = self.runs.glob(f"tiny-*/{variant}/seed0")
        return found

    def output(self) -> str:
        """What was printed, and what the workers said."""
        logs = [self.root / "output.txt", *self.runs.rglob("log.txt")]
        return "\n".join(f"== {log}\n{log.read_text()}" for log in logs if log.exists())


def ended(child: int, seconds: float = 240.0) -> int:
    """The exit code of a child, which is killed with its group where it takes too long."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"mhc-bench run took more than {seconds} s")


def stamps(root: Path) -> dict[str, int]:
    """When each finished file was written."""
    return {
        path.relative_to(root).as_posix(): path.stat().st_mtime_ns
        for run in root.glob("tiny-*/*/seed0")
        for path in (run / name for name in LASTING)
        if path.exists()
    }


def kept(content: Any) -> Any:
    """JSON content without what tells times."""
    if isinstance(content, dict):
        return {key: kept(value) for key, value in content.items() if key not in CHANGING}
    return [kept(value) for value in content] if isinstance(content, list) else content


def comparable(path: Path) -> Any:
    """What of a file must be equal after any disturbance."""
    if path.suffix == ".json":
        return kept(json.loads(path.read_text()))
    if path.suffix == ".csv":
        with path.open() as handle:
            return [kept(row) for row in csv.DictReader(handle)]
    if path.suffix == ".safetensors":  # tensors lie there in any order
        return digest(sorted(load_file(path).items()))
    return path.read_bytes()


def tells_a_failure(path: Path) -> bool:
    """Whether this is the record of an attempt that failed."""
    if not re.fullmatch(r"(record|seed)[\d-]*\.json", path.name):
        return False
    return json.loads(path.read_text())["status"] in ("failed", "partial")


def contents(ground: Ground) -> dict[str, Any]:
    """Everything below the runs and the published records, by name; of the leaderboard the names alone.

    Records of attempts that failed are left out: they are what tells of the disturbance.
    """
    found: dict[str, Any] = {}
    for place in ("runs", "records"):
        for path in sorted((ground.root / place).rglob("*")):
            name = EDITION.sub(r"\1", path.relative_to(ground.root).as_posix())
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file() and path.name not in APART and not tells_a_failure(path):
                drawn = "leaderboard" in path.parts or path.name.startswith("cost-")
                found[name] = None if drawn or path.name in TIMED else comparable(path)
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of files that are missing, too many or different."""
    return [
        f"{name}: {'left over' if name not in expected else 'missing' if name not in found else 'differs'}"
        for name in sorted({*found, *expected})
        if name not in found or name not in expected or found[name] != expected[name]
    ]


class SmallDisk(AbstractContextManager["SmallDisk"]):
    """A file system of its own in memory; mounting takes root."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place, self.megabytes = place, megabytes

    def __enter__(self) -> Self:
        self.place.mkdir(parents=True)
        self._mount(f"size={self.megabytes}m")
        return self

    def read_only(self, now: bool) -> None:
        """Forbid or allow all writing."""
        self._mount(f"remount,{'ro' if now else 'rw'}")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.place)]
        if os.waitstatus_to_exitcode(os.spawnvp(os.P_WAIT, "mount", command) << 8):
            raise PermissionError("mount")

    def __exit__(self, *_: object) -> None:
        os.spawnvp(os.P_WAIT, "umount", ["umount", "-l", str(self.place)])
        shutil.rmtree(self.place, ignore_errors=True)

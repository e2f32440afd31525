"""What a person sees while a suite runs: a live table on a terminal, one line per finished run elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mhc_bench.config import RunConfig
from mhc_bench.files import PROGRESS_FILE
from mhc_bench.suite.state import TRAINING_FILE, RunState, read_json


class Reporter:
    """Tells how far a suite is. Use as a context manager."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self.console, self.total, self.done = console, total, done
        self.started = time.monotonic()
        self.live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> Reporter:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    @staticmethod
    def name(run: RunConfig) -> str:
        """How a run is called in messages."""
        return " ".join(part for part in (run.arm, run.variant_name, f"seed {run.seed}") if part)

    def finished(self, run: RunConfig, folder: Path, state: RunState, seconds: float) -> None:
        """Say that a run has ended, and how."""
        self.done += state.finished
        if state.finished:
            outcome = f"{state.standing}, {_validation(folder)}, {duration(seconds)}"
        else:
            outcome = f"{state.standing}: {state.detail}"
        self.console.print(f"[{self.done}/{self.total}] {self.name(run)}: {outcome}", markup=False)

    def say(self, line: str) -> None:
        """Print one line above the table."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, active: list[tuple[RunConfig, Path]], waiting: int) -> None:
        """Refresh the live table, where there is one."""
        if self.live:
            self.live.update(self._table(active, waiting))

    def _table(self, active: list[tuple[RunConfig, Path]], waiting: int) -> Table:
        passed = duration(time.monotonic() - self.started)
        table = Table(title=f"{self.done} of {self.total} runs finished, {waiting} waiting, {passed}")
        for heading in ("run", "stage", "step", "loss", "tokens/s", "left"):
            table.add_column(heading)
        for run, folder in active:
            table.add_row(self.name(run), *_progress_cells(read_json(folder / PROGRESS_FILE)))
        return table


def _progress_cells(progress: dict[str, object] | None) -> tuple[str, ...]:
    if progress is None:
        return ("starting", "", "", "", "")
    loss, speed, left = (progress.get(key) for key in ("loss", "tokens_per_second", "seconds_left"))
    return (
        str(progress.get("stage")),
        f"{progress.get('step')}/{progress.get('steps')}",
        f"{loss:.3f}" if isinstance(loss, float) else "",
        f"{speed:,.0f}" if isinstance(speed, (int, float)) else "",
        duration(left) if isinstance(left, (int, float)) else "",
    )


def _validation(folder: Path) -> str:
    points = (read_json(folder / TRAINING_FILE) or {}).get("validation") or [{}]
    loss = points[-1].get("loss")
    return f"validation loss {loss:.4f}" if isinstance(loss, float) else "no finite validation loss"


def duration(seconds: float) -> str:
    """Seconds as `1 h 02 min`, `3 min 04 s` or `5 s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

"""Where a run stands, for people (a bar) and for the suite runner (`progress.json`)."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mhc_bench.files import PROGRESS_FILE, write_progress

SECONDS_BETWEEN = 1.0


class RunProgress:
    """Shows and writes progress at most once a second; `quiet` and other than a terminal show no bar."""

    def __init__(self, run_dir: Path, label: str, steps: int, quiet: bool) -> None:
        self._folder, self._steps, self._last = run_dir, steps, 0.0
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=steps, loss="-", speed="-")

    def start(self, step: int) -> None:
        """Begin at `step`."""
        self._bar.start()
        self._bar.update(self._task, completed=step)

    def update(self, step: int, loss: float | None, tokens_per_second: float, seconds_left: float) -> None:
        """Tell where the run is; most calls do nothing."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN:
            return
        self._last = now
        shown = "-" if loss is None else f"{loss:.3f}"
        self._bar.update(self._task, completed=step, loss=shown, speed=f"{tokens_per_second:,.0f}")
        write_progress(
            self._folder,
            {
                "stage": "train",
                "step": step,
                "steps": self._steps,
                "loss": loss,
                "tokens_per_second": tokens_per_second,
                "seconds_left": seconds_left,
            },
        )

    def stop(self, step: int) -> None:
        """Leave the bar at `step` and remove the file."""
        self._bar.update(self._task, completed=step)
        self._bar.stop()
        (self._folder / PROGRESS_FILE).unlink(missing_ok=True)

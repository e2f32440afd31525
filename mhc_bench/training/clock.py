"""Which step the run is at, and how long steps take without what is done between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Shared by the callbacks: the recorder sets it first after each batch, the others read it."""

    def __init__(self) -> None:
        self.step = 0
        """Optimizer steps done."""
        self.stepped = False
        """Whether the last batch completed an optimizer step."""
        self.ending = False
        """Whether that was the last step of the run."""
        self.taken = True
        """Whether it was taken: one that is not finite is not, and ends the run after the step before."""
        self._mark: float | None = None
        self._pauses = 0

    def due(self, every: int) -> bool:
        """Whether it is time for what is done every so many steps and after the last, once for each step."""
        on_time = self.step % every == 0
        return on_time or self.ending if self.taken else not on_time

    def begin(self) -> None:
        """The first step begins now; later calls do nothing."""
        if self._mark is None:
            self._mark = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the step began, pauses apart; the next one begins now."""
        assert self._mark is not None
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        return seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count as step time; a pause within a pause adds nothing to it."""
        began = time.perf_counter()
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if self._mark is not None and self._pauses == 0:
                self._mark += time.perf_counter() - began

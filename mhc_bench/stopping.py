"""Being told to stop by a signal, and ending so that the same command goes on later."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

from mhc_bench.errors import StoppedError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SIGTERM comes with preemption, `scancel` and a shutdown; the other two are what schedulers can be asked to
send some time before a time limit."""


@contextlib.contextmanager
def ends_when_told() -> Iterator[None]:
    """A stop signal inside ends this process with the exit code of `StoppedError`.

    It raises `SystemExit`, which no library takes for an error that it may swallow.
    """
    before, leaving = _handle(_end), False
    try:
        yield
    except SystemExit:
        leaving = True
        raise
    finally:
        if not leaving:
            _restore(before)


def _end(number: int, frame: FrameType | None) -> None:
    print(f"stopped by {signal.Signals(number).name}", file=sys.stderr, flush=True)
    leave(StoppedError.exit_code)


def leave(code: int) -> NoReturn:
    """End this process with `code`, whatever signals come on its way out."""
    _handle(signal.SIG_IGN)
    sys.exit(code)


@contextlib.contextmanager
def handlers_kept(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Whatever handlers a library sets inside for these signals are gone afterwards."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            _restore(before)


class StopNotice:
    """Inside `with`, a stop signal is only noted: what is under way can be brought to a good end first."""

    def __init__(self) -> None:
        self.told = False

    def __enter__(self) -> StopNotice:
        self._before = _handle(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._before)

    def listen_again(self) -> None:
        """Take the signals back from a library that has put handlers of its own in between."""
        _handle(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.told = True


Handlers = dict[signal.Signals, Any]


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Handlers:
    """Give all stop signals one handler; returns those before. Only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in STOP_SIGNALS}


def _restore(before: Handlers) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)

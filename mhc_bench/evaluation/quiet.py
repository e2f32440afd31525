"""lm-eval and transformers without their chatter: bars become a callback, noteworthy warnings a list."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar
from unittest import mock

import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.utils

from mhc_bench.evaluation.availability import quiet_datasets

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many requests are done, and how many there are."""

_NOTEWORTHY = ("runcat", "Label index")
_BAR_MODULES = (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface)

T = TypeVar("T")


@contextlib.contextmanager
def quiet_lm_eval(on_progress: Progress | None) -> Iterator[list[str]]:
    """Keep lm-eval's bars and chatter off the screen; yields the list that its noteworthy warnings go to."""
    kept = _Kept()
    logger = logging.getLogger("lm_eval")
    propagate, level = logger.propagate, logger.level
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_datasets())
        for module in _BAR_MODULES:
            stack.enter_context(mock.patch.object(module, "tqdm", functools.partial(_Bar, on_progress)))
        # a template is compiled anew for every document otherwise: half of the time of a small evaluation
        templates = lm_eval.utils.env
        compiled = functools.lru_cache(maxsize=1024)(templates.from_string)
        stack.enter_context(mock.patch.object(templates, "from_string", compiled))
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.addHandler(kept)
        try:
            yield kept.messages
        finally:
            logger.removeHandler(kept)
            logger.propagate = propagate
            logger.setLevel(level)


class _Kept(logging.Handler):
    """Keeps each noteworthy message once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if text not in self.messages and any(word in text for word in _NOTEWORTHY):
            self.messages.append(text)


class _Bar(Generic[T]):
    """Stands where lm-eval wants a tqdm; tells `on_progress` instead of drawing."""

    def __init__(
        self,
        on_progress: Progress | None,
        iterable: Iterable[T] = (),
        total: int | None = None,
        desc: str = "building requests",
        disable: bool = False,
    ) -> None:
        self._items = list(iterable)
        self._report = None if disable else on_progress
        self._total = len(self._items) if total is None else total
        self._what, self._done = desc, 0

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            yield item
            self.update()

    def update(self, n: int = 1) -> None:
        self._done += n
        if self._report is not None:
            self._report(self._what, self._done, self._total)

    def close(self) -> None:
        """Nothing was drawn."""

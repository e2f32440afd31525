"""Texts to token ids in several processes, with the same result for any number of them."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mhc_bench.data.tokenizer import TokenizerFile
from mhc_bench.errors import RunError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOCK_TEXTS = 256
"""Texts that a process gets at a time. Shards end where blocks end, so this is part of their format."""
WAITING = 4
"""Blocks in flight for each process."""


class Block(NamedTuple):
    """The tokens of some texts, documents of each part one after another, a separator before each."""

    train: npt.NDArray[Any]
    validation: npt.NDArray[Any]
    texts: int
    documents: int
    validation_documents: int
    text_bytes: int
    passed: int
    """Bytes of the source's files that are finished."""


def validates(text: str, fraction: float) -> bool:
    """Whether a document is kept for validation: a matter of its text alone, so that copies stay together."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < fraction * 2.0**64


@dataclass(frozen=True)
class Encoding:
    """How texts become tokens."""

    tokenizer: TokenizerFile
    dtype: np.dtype[Any]
    validation_fraction: float

    def blocks(self, texts: Iterator[tuple[str, int]], processes: int) -> Iterator[Block]:
        """The texts, encoded, in order; each text comes with the bytes of finished files before it."""
        batches = iter(lambda: list(itertools.islice(texts, BLOCK_TEXTS)), [])
        if processes == 1:
            backend, separator = self.tokenizer.backend(), self.tokenizer.separator_id()
            return (self._encode(backend, separator, batch) for batch in batches)
        return self._parallel(batches, processes)

    def _parallel(self, batches: Iterator[list[tuple[str, int]]], processes: int) -> Iterator[Block]:
        # a fork would copy the threads' locks of whatever runs here
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(self,))
        waiting: deque[Future[Block]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_encode_in_worker, batch))
                if len(waiting) >= WAITING * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenExecutor as error:
            raise RunError(
                "a tokenising process was killed, perhaps for want of memory: the same command goes on, with "
                "fewer --processes"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _encode(self, backend: Tokenizer, separator: int, batch: list[tuple[str, int]]) -> Block:
        texts = [text for text, _ in batch if text.strip()]
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        parts: dict[bool, list[npt.NDArray[Any]]] = {False: [], True: []}
        for text, encoding in zip(texts, encodings, strict=True):
            ids = np.array([separator, *encoding.ids], dtype=self.dtype)
            parts[validates(text, self.validation_fraction)].append(ids)
        train, validation = (
            np.concatenate([np.empty(0, self.dtype), *parts[side]]) for side in (False, True)
        )
        size = sum(len(text.encode()) for text in texts)
        return Block(train, validation, len(batch), len(texts), len(parts[True]), size, batch[-1][1])


_WORKER: list[tuple[Encoding, Any, int]] = []


def _start_worker(encoding: Encoding) -> None:
    # one thread each: the processes are the parallelism
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # an interrupt is the first process's to handle, and its death ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _WORKER.append((encoding, encoding.tokenizer.backend(), encoding.tokenizer.separator_id()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_in_worker(batch: list[tuple[str, int]]) -> Block:
    encoding, backend, separator = _WORKER[0]
    return encoding._encode(backend, separator, batch)

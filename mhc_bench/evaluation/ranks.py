"""An evaluation by several ranks: the first asks, all answer, each with a whole model of its own.

Requests are divided, not documents as in lm-eval's own data parallelism: there each rank draws the worked
examples of its documents by itself, so that prompts would depend on the number of ranks. Here prompts, scores
and the order of the items are made by one rank, and no request is asked twice to fill up a share.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from mhc_bench.evaluation.quiet import quiet_lm_eval

PATIENCE = timedelta(hours=4)
"""How long a rank waits for the others' answers, or for the next requests, before it gives up."""


class Ranks:
    """All processes of this launch; every method is collective unless it says otherwise."""

    def __init__(self) -> None:
        self.count = dist.get_world_size() if dist.is_initialized() else 1
        self.number = dist.get_rank() if self.count > 1 else 0
        # strings go over the CPUs, whatever the training's tensors go over
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None

    @property
    def first(self) -> bool:
        """Whether this rank asks; not collective."""
        return self.number == 0

    def scatter(self, parts: list[Any]) -> Any:
        """This rank's part of what the first rank gives; the others' `parts` do not count."""
        if self.count == 1:
            return parts[0]
        received: list[Any] = [None]
        dist.scatter_object_list(received, parts if self.first else None, src=0, group=self._group)
        return received[0]

    def gather(self, part: Any) -> list[Any]:
        """The first rank gets every rank's part, the others nothing."""
        if self.count == 1:
            return [part]
        parts: list[Any] = [None] * self.count
        dist.gather_object(part, parts if self.first else None, dst=0, group=self._group)
        return parts if self.first else []

    def close(self) -> None:
        """Give the group up."""
        if self._group is not None:
            dist.destroy_process_group(self._group)


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of an evaluation; one that fails leaves without waiting for the others."""
    ranks = Ranks()
    yield ranks
    ranks.close()


class DividedLM(LM):
    """The first rank's model for lm-eval: its requests are answered by all ranks, which `serve`."""

    def __init__(self, own: LM, ranks: Ranks) -> None:
        super().__init__()
        self._own, self._ranks = own, ranks

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As the model's own."""
        return self._divide("loglikelihood", requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """As the model's own."""
        return self._divide("loglikelihood_rolling", requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As the model's own."""
        return self._divide("generate_until", requests, disable_tqdm)

    def _divide(self, kind: str, requests: list[Instance], disable_tqdm: bool) -> list[Any]:
        places = shares(requests, self._ranks.count)
        parts = [(kind, [requests[place].args for place in share]) for share in places]
        _, own = self._ranks.scatter(parts)
        found = self._ranks.gather((_answers(self._own, kind, own, disable_tqdm), []))
        answers: list[Any] = [None] * len(requests)
        for share, (part, warnings) in zip(places, found, strict=True):
            for place, answer in zip(share, part, strict=True):
                answers[place] = answer
            for message in warnings:
                logging.getLogger("lm_eval").warning(message)
        return answers

    def end(self) -> None:
        """Let the other ranks leave `serve`."""
        self._ranks.scatter([(None, [])] * self._ranks.count)


@contextmanager
def divided(own: LM, ranks: Ranks) -> Iterator[LM]:
    """On the first rank: the model to hand to lm-eval, while the other ranks `serve`.

    After an error there is no end that the others could be told: what they wait for is not known. The
    launcher ends them with this rank.
    """
    if ranks.count == 1:
        yield own
        return
    lm = DividedLM(own, ranks)
    yield lm
    lm.end()


def serve(own: LM, ranks: Ranks) -> None:
    """On the other ranks: answer what is asked until the first rank has all that it wants."""
    with quiet_lm_eval(None) as warnings:
        kind, requests = ranks.scatter([])
        while kind is not None:
            ranks.gather((_answers(own, kind, requests, True), list(warnings)))
            kind, requests = ranks.scatter([])


def shares(requests: Sequence[Instance], ranks: int) -> list[list[int]]:
    """The places of each rank's requests. Contexts are dealt out, longest first, with all their requests:
    a model computes what the choices of a question have in common once."""
    contexts: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        contexts.setdefault(request.args[0], []).append(place)
    dealt = sorted(contexts.items(), key=lambda item: -len(item[0]))
    return [
        list(itertools.chain.from_iterable(places for _, places in dealt[rank::ranks]))
        for rank in range(ranks)
    ]


def _answers(own: LM, kind: str, arguments: list[tuple[Any, ...]], disable_tqdm: bool) -> list[Any]:
    if not arguments:
        return []
    requests = [Instance(kind, doc={}, arguments=each, idx=0) for each in arguments]
    found: list[Any] = getattr(own, kind)(requests, disable_tqdm=disable_tqdm)
    return found

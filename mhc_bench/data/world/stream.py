"""The stream of documents: which family comes next, and rows of token ids."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.facts import World, world
from mhc_bench.data.world.family import Family
from mhc_bench.data.world.habits import Hella, Piqa
from mhc_bench.data.world.knowledge import Mmlu, Trivia, biography
from mhc_bench.data.world.lexicon import COLOURS, DIGITS, EOS, GOODS, LETTERS, vocabulary
from mhc_bench.data.world.puzzles import Bbh
from mhc_bench.data.world.sums import Gsm, Math
from mhc_bench.data.world.tables import Drop

FAMILIES: dict[str, type[Family]] = {
    kind.name: kind for kind in (Bbh, Drop, Gsm, Hella, Math, Mmlu, Piqa, Trivia)
}

SHARES = {
    "bio": 0.12,
    "echo": 0.17,
    "bbh": 0.22,
    "drop": 0.18,
    "gsm": 0.065,
    "hella": 0.04,
    "math": 0.065,
    "mmlu": 0.04,
    "piqa": 0.025,
    "trivia": 0.06,
}
"""Weight of each kind of document in the stream, in tokens."""

_LOTTERY = 4096  # tickets from which the kind of the next document is drawn
_TRIAL = 200  # documents from which the mean length of a kind is taken


@cache
def family(name: str, world_seed: int, scale: int = 1) -> Family:
    """The family `name` of a world."""
    return FAMILIES[name](world(world_seed, scale))


def echo(facts: World, draws: Draws) -> list[str]:
    """Random words, and pieces of them again: what looking things up in the context is learned from.

    The pieces begin anywhere, so that counting words does not help: the word before must be found again.
    """
    pool = facts.lexicon.names + LETTERS + GOODS + COLOURS + DIGITS
    words = draws.sample(pool, 5 + draws.below(4))
    document = ["repeat", *words]
    for _ in range(4):
        start = draws.below(len(words) - 2)
        document += ["again", *words[start : start + 3]]
    return [*document, "."]


class Stream:
    """All documents of a world, in an order that follows from what a row is drawn for.

    Args:
        world_seed: Which facts.
        scale: How many people, species and activities, in units of the usual number.
    """

    def __init__(self, world_seed: int, scale: int = 1) -> None:
        self._world = world(world_seed, scale)
        self._families = {name: family(name, world_seed, scale) for name in FAMILIES}
        self._ids = {word: number for number, word in enumerate(vocabulary(scale))}
        self._tickets = self._lottery()

    def document(self, kind: str, draws: Draws) -> list[str]:
        """The words of one document of `kind`, without the `<eos>` before it."""
        if kind == "bio":
            return biography(self._world, draws)
        if kind == "echo":
            return echo(self._world, draws)
        return self._families[kind].document(draws)

    def _lottery(self) -> list[str]:
        """Kinds in proportion to share / mean length, so that the shares are shares of tokens."""
        draws = Draws("lengths", self._world.seed)
        lengths = {
            kind: sum(1 + len(self.document(kind, draws)) for _ in range(_TRIAL)) / _TRIAL for kind in SHARES
        }
        weights = {kind: share / lengths[kind] for kind, share in SHARES.items()}
        total = sum(weights.values())
        return [kind for kind, weight in weights.items() for _ in range(round(_LOTTERY * weight / total))]

    def row(self, length: int, *purpose: object) -> npt.NDArray[np.int64]:
        """Token ids, int64 [length]: whole documents, each after `<eos>`, the last one cut.

        A row depends on its purpose alone and begins with a document, so rows can be read in any order, and a
        shorter row is the beginning of a longer one.
        """
        draws, words = Draws(*purpose, self._world.seed), list[str]()
        while len(words) < length:
            words.append(EOS)
            words += self.document(draws.among(self._tickets), draws)
        return np.array([self._ids[word] for word in words[:length]], dtype=np.int64)

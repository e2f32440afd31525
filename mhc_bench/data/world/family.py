"""What the families of the language have in common: training documents, and test items with held-out keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mhc_bench.data.world.draws import Draws, held_out
from mhc_bench.data.world.facts import World
from mhc_bench.data.world.lexicon import EOS


@dataclass(frozen=True)
class Item:
    """A question with its answer, as text.

    Attributes:
        sub: The type of question within the family.
        key: What decides between training and test.
        context: What the model sees; begins with `<eos>` as every document of the stream does.
        gold: The right continuation.
        choices: The continuations to choose from, `gold` among them; empty where the answer is generated.
        answer: The part of `gold` that is scored.
        guesses: Where the context names a few possible answers to a generated question: those.
    """

    sub: str
    key: str
    context: str
    gold: str
    choices: tuple[str, ...]
    answer: str
    guesses: tuple[str, ...]


def item(
    sub: str,
    key: str,
    context: list[str],
    gold: list[str],
    *,
    choices: Sequence[str] = (),
    answer: str = "",
    guesses: Sequence[str] = (),
) -> Item:
    """An `Item` from words; `answer` defaults to the whole of `gold`."""
    text = " ".join(gold)
    return Item(sub, key, " ".join([EOS, *context]), text, tuple(choices), answer or text, tuple(guesses))


class Family(ABC):
    """One kind of document, and the questions asked about it.

    Args:
        world: The facts that documents and items agree with.
    """

    name: ClassVar[str]
    modulus: ClassVar[int] = 4
    """One key in so many is held out."""

    def __init__(self, world: World) -> None:
        self.world = world

    def is_held_out(self, key: str) -> bool:
        """Whether `key` belongs to the test of this world."""
        return held_out(self.modulus, self.name, self.world.seed, key)

    @abstractmethod
    def document(self, draws: Draws) -> list[str]:
        """The words of a training document, the final `.` included; its key is never held out."""

    @abstractmethod
    def training_item(self, draws: Draws) -> Item:
        """A question of the test's form whose key belongs to training."""

    @abstractmethod
    def held_out_items(self) -> Iterator[Item]:
        """Items with held-out keys: each at most once, finitely many, in no particular order."""

"""Facts to memorise: `trivia` (after TriviaQA), `mmlu` (after MMLU), and the biographies that feed trivia."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.facts import World
from mhc_bench.data.world.family import Family, Item, item
from mhc_bench.data.world.lexicon import ATTRIBUTES, PROPERTIES

_VERBS = {
    "home": ["lives", "in"],
    "job": ["works", "as"],
    "food": ["eats"],
    "pet": ["keeps"],
    "art": ["studies"],
}


def biography(world: World, draws: Draws) -> list[str]:
    """All facts of one person in random order, each in one of two forms."""
    person = draws.among(world.lexicon.people)
    words: list[str] = []
    for attribute in draws.shuffled(tuple(ATTRIBUTES)):
        form = [person, *_VERBS[attribute]] if draws.below(2) else ["the", attribute, "of", person, "is"]
        words += [*form, world.people[person][attribute], "."]
    return words


class Trivia(Family):
    """`question art of nuzuga ? answer fezoics .` Of half of the people only biographies are written."""

    name: ClassVar[str] = "trivia"
    modulus: ClassVar[int] = 2

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._known = [person for person in world.people if not self.is_held_out(person)]

    def _item(self, person: str, attribute: str) -> Item:
        context = ["question", attribute, "of", person, "?", "answer"]
        return item(attribute, person, context, [self.world.people[person][attribute]])

    def document(self, draws: Draws) -> list[str]:
        person, attribute = draws.among(self._known), draws.among(tuple(ATTRIBUTES))
        return ["question", attribute, "of", person, "?", "answer", self.world.people[person][attribute], "."]

    def training_item(self, draws: Draws) -> Item:
        return self._item(draws.among(self._known), draws.among(tuple(ATTRIBUTES)))

    def held_out_items(self) -> Iterator[Item]:
        for person in self.world.people:
            if self.is_held_out(person):
                yield from (self._item(person, attribute) for attribute in ATTRIBUTES)


class Mmlu(Family):
    """`season of zovuix is fasay .` A quarter of the cells is never shown: it follows from the others."""

    name: ClassVar[str] = "mmlu"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        cells = [(kind, member) for member in world.species for kind in PROPERTIES]
        self._known = [cell for cell in cells if not self.is_held_out(" ".join(cell))]
        self._unknown = [cell for cell in cells if self.is_held_out(" ".join(cell))]

    def _item(self, kind: str, member: str) -> Item:
        gold, choices = self.world.species[member][kind], list(self.world.lexicon.traits[kind])
        return item(kind, f"{kind} {member}", [kind, "of", member, "is"], [gold], choices=choices)

    def document(self, draws: Draws) -> list[str]:
        kind, member = draws.among(self._known)
        return [kind, "of", member, "is", self.world.species[member][kind], "."]

    def training_item(self, draws: Draws) -> Item:
        return self._item(*draws.among(self._known))

    def held_out_items(self) -> Iterator[Item]:
        return (self._item(*cell) for cell in self._unknown)

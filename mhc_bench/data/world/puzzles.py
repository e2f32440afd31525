"""Four kinds of puzzle: `bbh` (after BIG-Bench Hard). Key: what comes before the question."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import ClassVar, NamedTuple

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.facts import World
from mhc_bench.data.world.family import Family, Item, item
from mhc_bench.data.world.lexicon import BRACKETS, COLOURS, LETTERS

KINDS = ("track", "dyck", "bool", "hop")
CANDIDATES = 400  # of each kind
# in training, what is harder to learn comes twice as often
_TICKETS = ("track", "track", "dyck", "bool", "bool", "hop")


class Puzzle(NamedTuple):
    """A puzzle: what is given, and questions about it with their answers, in words."""

    kind: str
    given: list[str]
    questions: list[tuple[list[str], list[str]]]


def track(names: tuple[str, ...], draws: Draws) -> Puzzle:
    """Three people hold three colours; two of them swap. Who holds what now?"""
    people, colours = draws.sample(names, 3), draws.sample(COLOURS, 3)
    given = [word for pair in zip(people, colours, strict=True) for word in (pair[0], "holds", pair[1], ".")]
    first, second = draws.sample(range(3), 2)
    given += [people[first], people[second], "swap", "."]
    colours[first], colours[second] = colours[second], colours[first]
    questions = [(["now", people[one], "holds"], [colours[one]]) for one in draws.shuffled(range(3))]
    return Puzzle("track", given, questions)


def dyck(draws: Draws) -> Puzzle:
    """Which bracket must close next? Three to seven brackets, one to three of them open."""
    opened: list[str] = []
    given = ["brackets"]
    for _ in range(3 + draws.below(5)):
        closing = len(opened) > 1 and (len(opened) == 3 or draws.below(2))
        given.append(BRACKETS[opened.pop()] if closing else draws.among(tuple(BRACKETS)))
        if not closing:
            opened.append(given[-1])
    return Puzzle("dyck", given, [(["next"], [BRACKETS[opened[-1]]])])


def hop(draws: Draws) -> Puzzle:
    """A ring of four letters as shuffled links; follow one or two of them."""
    ring = draws.sample(LETTERS, 4)
    given = ["links"]
    for place in draws.shuffled(range(4)):
        given += [ring[place], ring[(place + 1) % 4], ";"]
    questions = []
    for start in draws.sample(range(4), 3):
        links = 1 + draws.below(2)
        path = [ring[(start + step) % 4] for step in range(links + 1)]
        questions.append((["walk", str(links), ":", path[0]], path[1:]))
    return Puzzle("hop", given, questions)


_LITERALS = (("true",), ("false",), ("not", "true"), ("not", "false"))


def _formulas() -> Iterator[tuple[list[str], bool]]:
    """All formulas of two or three literals, with their truth."""
    pairs = []
    for left, joint, right in product(_LITERALS, ("and", "or"), _LITERALS):
        pairs.append((["(", *left, joint, *right, ")"], _join(_truth(left), joint, _truth(right))))
    yield from pairs
    for (words, truth), joint, literal in product(pairs, ("and", "or"), _LITERALS):
        value = _join(truth, joint, _truth(literal))
        yield ["(", *words, joint, *literal, ")"], value
        yield ["(", *literal, joint, *words, ")"], value


def _truth(literal: tuple[str, ...]) -> bool:
    return literal in (("true",), ("not", "false"))


def _join(left: bool, joint: str, right: bool) -> bool:
    return left and right if joint == "and" else left or right


class Bbh(Family):
    """`track`, `dyck`, `bool` and `hop`; a training document asks all questions of its puzzle."""

    name: ClassVar[str] = "bbh"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._formulas: dict[tuple[bool, bool], list[list[str]]] = {}
        for words, truth in _formulas():
            self._formulas.setdefault((self.is_held_out(" ".join(words)), truth), []).append(words)

    def _bool(self, draws: Draws, testing: bool) -> Puzzle:
        # the truth is drawn first: left to itself, a formula is more often true or more often false
        truth = bool(draws.below(2))
        words = draws.among(self._formulas[testing, truth])
        return Puzzle("bool", words, [(["is"], [str(truth).lower()])])

    def _puzzle(self, kind: str, draws: Draws, testing: bool) -> Puzzle:
        if kind == "bool":
            return self._bool(draws, testing)
        while True:
            puzzle = self._drawn(kind, draws)
            if self.is_held_out(" ".join(puzzle.given)) == testing:
                return puzzle

    def _drawn(self, kind: str, draws: Draws) -> Puzzle:
        if kind == "track":
            return track(self.world.lexicon.names, draws)
        return dyck(draws) if kind == "dyck" else hop(draws)

    @staticmethod
    def _item(puzzle: Puzzle) -> Item:
        question, answer = puzzle.questions[0]
        key, context = " ".join(puzzle.given), [*puzzle.given, *question]
        guesses = [word for word in puzzle.given if word in COLOURS]
        return item(puzzle.kind, key, context, answer, guesses=guesses)

    def document(self, draws: Draws) -> list[str]:
        puzzle = self._puzzle(draws.among(_TICKETS), draws, testing=False)
        words = puzzle.given
        for question, answer in puzzle.questions:
            words = [*words, *question, *answer, "."]
        return words

    def training_item(self, draws: Draws) -> Item:
        return self._item(self._puzzle(draws.among(KINDS), draws, testing=False))

    def held_out_items(self) -> Iterator[Item]:
        for kind, number in product(KINDS, range(CANDIDATES)):
            draws = Draws("bbh item", self.world.seed, kind, number)
            yield self._item(self._puzzle(kind, draws, testing=True))

"""Sums with written-out steps: `gsm` (after GSM8K) and `math` (after MATH)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import ClassVar

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.facts import World
from mhc_bench.data.world.family import Family, Item, item
from mhc_bench.data.world.lexicon import GOODS

CANDIDATES = 1600
_SIGNS = {"finds": "+", "drops": "-"}


def _total(left: int, sign: str, right: int) -> int:
    return left + right if sign == "+" else left - right


def _written(left: int, sign: str, right: int, result: int) -> list[str]:
    return [str(left), sign, str(right), "=", str(result), ";"]


class Gsm(Family):
    """`fana has 4 plum . she finds 9 . how many ? answer 4 + 9 = 13 ; total 13 .` Key: the story."""

    name: ClassVar[str] = "gsm"

    def _sum(self, draws: Draws, testing: bool) -> tuple[int, list[str], list[str]]:
        """Number of steps, story and solution."""
        while True:
            name, count, steps = draws.among(self.world.lexicon.names), 1 + draws.below(9), 1 + draws.below(3)
            story, solution = [name, "has", str(count), draws.among(GOODS), "."], []
            for _ in range(steps):
                verb, change = self._change(count, draws)
                result = _total(count, _SIGNS[verb], change)
                story += [self.world.pronouns[name], verb, str(change), "."]
                solution += _written(count, _SIGNS[verb], change, result)
                count = result
            if self.is_held_out(" ".join(story)) == testing:
                return steps, [*story, "how", "many", "?", "answer"], [*solution, "total", str(count)]

    @staticmethod
    def _change(count: int, draws: Draws) -> tuple[str, int]:
        """What happens next; at least one is kept."""
        if count > 1 and draws.below(2):
            return "drops", 1 + draws.below(min(count - 1, 9))
        return "finds", 1 + draws.below(9)

    def _item(self, draws: Draws, testing: bool) -> Item:
        steps, story, solution = self._sum(draws, testing)
        return item(f"s{steps}", " ".join(story[:-4]), story, solution, answer=solution[-1])

    def document(self, draws: Draws) -> list[str]:
        _, story, solution = self._sum(draws, testing=False)
        return [*story, *solution, "."]

    def training_item(self, draws: Draws) -> Item:
        return self._item(draws, testing=False)

    def held_out_items(self) -> Iterator[Item]:
        for number in range(CANDIDATES):
            yield self._item(Draws("gsm item", self.world.seed, number), testing=True)


Simple = tuple[int, str, int]
Expression = tuple["int | Simple", str, "int | Simple"]


def _simple() -> Iterator[Simple]:
    return ((left, sign, right) for left in range(1, 10) for sign in "+-" for right in range(1, 10))


def _expressions() -> Iterator[Expression]:
    """All expressions of depth 1 and 2 over the numbers 1 to 9 in which every value is at least 1."""
    simple = [expression for expression in _simple() if _value(expression) > 0]
    nested: list[Expression] = []
    for inner in simple:
        for sign, digit in product("+-", range(1, 10)):
            nested += [(inner, sign, digit), (digit, sign, inner)]
    yield from simple
    yield from (expression for expression in nested if _value(expression) > 0)


def _spelled(term: int | Expression) -> list[str]:
    if isinstance(term, int):
        return [str(term)]
    left, sign, right = term
    return ["(", *_spelled(left), sign, *_spelled(right), ")"]


def _value(term: int | Expression) -> int:
    return term if isinstance(term, int) else _total(_value(term[0]), term[1], _value(term[2]))


def _steps(term: int | Expression) -> list[str]:
    """The steps that lead to the value, innermost first."""
    if isinstance(term, int):
        return []
    left, sign, right = term
    return [*_steps(left), *_steps(right), *_written(_value(left), sign, _value(right), _value(term))]


class Math(Family):
    """`compute ( 1 + ( 9 + 5 ) ) ? answer 9 + 5 = 14 ; 1 + 14 = 15 ; total 15 .` Key: the expression."""

    name: ClassVar[str] = "math"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._known: dict[str, list[Item]] = {"d1": [], "d2": []}
        self._unknown: list[Item] = []
        for expression in _expressions():
            problem = self._item(expression)
            if self.is_held_out(problem.key):
                self._unknown.append(problem)
            else:
                self._known[problem.sub].append(problem)

    @staticmethod
    def _item(expression: Expression) -> Item:
        spelled, value = _spelled(expression), str(_value(expression))
        depth, context = f"d{spelled.count('(')}", ["compute", *spelled, "?", "answer"]
        return item(depth, " ".join(spelled), context, [*_steps(expression), "total", value], answer=value)

    def document(self, draws: Draws) -> list[str]:
        problem = self.training_item(draws)
        return [*problem.context.split()[1:], *problem.gold.split(), "."]

    def training_item(self, draws: Draws) -> Item:
        return draws.among(self._known[draws.among(("d1", "d2"))])

    def held_out_items(self) -> Iterator[Item]:
        return iter(self._unknown)

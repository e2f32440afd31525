"""Reading a table: `drop` (after DROP)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.family import Family, Item, item
from mhc_bench.data.world.lexicon import GOODS

ROWS, CANDIDATES = 3, 1600
KINDS = ("get", "item", "who", "most", "count")


@dataclass(frozen=True)
class Table:
    """Rows of a name, a number and a good; names and numbers are distinct, two rows share their good."""

    rows: list[tuple[str, int, str]]

    @property
    def words(self) -> list[str]:
        """The table as it is written, the closing `.` included."""
        words = ["table"]
        for name, number, good in self.rows:
            words += [name, str(number), good, ","]
        return [*words[:-1], "."]

    def question(self, kind: str, row: int) -> tuple[list[str], list[str]]:
        """The words of a question of `kind` about row `row`, and those of its answer."""
        name, number, good = self.rows[row]
        owners = [owner for owner, _, owned in self.rows if owned == good]
        if kind == "get":
            return ["ask", name], [str(number), good]
        if kind == "item":
            return ["ask", str(number)], [good]
        if kind == "who":
            return ["who", good], owners
        if kind == "count":
            return ["count", good], [str(len(owners))]
        return ["most"], [max(self.rows, key=lambda entry: entry[1])[0]]


class Drop(Family):
    """`table loza 4 pear , dazu 1 pear , fale 2 apple . ask 4 pear . most loza .` Key: the table."""

    name: ClassVar[str] = "drop"

    def _table(self, draws: Draws, testing: bool) -> Table:
        """A table whose key is held out, or one whose key is not."""
        while True:
            names, numbers = draws.sample(self.world.lexicon.names, ROWS), draws.sample(range(1, 10), ROWS)
            one, other = draws.sample(GOODS, 2)
            goods = draws.shuffled([one, one, other])
            table = Table(list(zip(names, numbers, goods, strict=True)))
            if self.is_held_out(" ".join(table.words)) == testing:
                return table

    def _item(self, draws: Draws, testing: bool) -> Item:
        table, kind = self._table(draws, testing), draws.among(KINDS)
        # which good is asked for is drawn among the two goods, so that `count` has no likelier answer
        row = self._row(table, kind, draws)
        question, answer = table.question(kind, row)
        return item(kind, " ".join(table.words), [*table.words, *question], answer)

    @staticmethod
    def _row(table: Table, kind: str, draws: Draws) -> int:
        if kind not in ("who", "count"):
            return draws.below(ROWS)
        goods = [good for _, _, good in table.rows]
        return goods.index(draws.among(sorted(set(goods))))

    def document(self, draws: Draws) -> list[str]:
        table = self._table(draws, testing=False)
        words = table.words
        for kind in draws.shuffled(KINDS):
            question, answer = table.question(kind, self._row(table, kind, draws))
            words += [*question, *answer, "."]
        return words

    def training_item(self, draws: Draws) -> Item:
        return self._item(draws, testing=False)

    def held_out_items(self) -> Iterator[Item]:
        for number in range(CANDIDATES):
            yield self._item(Draws("drop item", self.world.seed, number), testing=True)

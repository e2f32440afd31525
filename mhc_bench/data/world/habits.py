"""What usually comes next: `hella` (after HellaSwag: scripts) and `piqa` (after PIQA: tools)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.facts import SCRIPT_STEPS, TOOL_CLASSES, World
from mhc_bench.data.world.family import Family, Item, item

_OTHER = {"he": "she", "she": "he"}


class Hella(Family):
    """`loza is retaing . she begos . she poles ...`: the six steps of an activity. Key: name and activity."""

    name: ClassVar[str] = "hella"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        pairs = [(name, activity) for activity in world.scripts for name in world.lexicon.names]
        self._known = [pair for pair in pairs if not self.is_held_out(" ".join(pair))]
        self._unknown = [pair for pair in pairs if self.is_held_out(" ".join(pair))]

    def _words(self, name: str, activity: str, steps: int) -> list[str]:
        words = [name, "is", activity, "."]
        for step in self.world.scripts[activity][:steps]:
            words += [self.world.pronouns[name], step, "."]
        return words

    def _item(self, name: str, activity: str) -> Item:
        draws = Draws("hella item", self.world.seed, name, activity)
        script, pronoun = self.world.scripts[activity], self.world.pronouns[name]
        shown = 2 + draws.below(SCRIPT_STEPS - 2)
        misplaced = draws.among([step for step in script if step != script[shown]])
        foreign = draws.among([step for step in self.world.lexicon.steps if step not in script])
        gold = f"{pronoun} {script[shown]}"
        wrong = [f"{_OTHER[pronoun]} {script[shown]}", f"{pronoun} {misplaced}", f"{pronoun} {foreign}"]
        context = self._words(name, activity, shown)
        return item(
            "next", f"{name} {activity}", context, gold.split(), choices=draws.shuffled([gold, *wrong])
        )

    def document(self, draws: Draws) -> list[str]:
        return self._words(*draws.among(self._known), SCRIPT_STEPS)

    def training_item(self, draws: Draws) -> Item:
        return self._item(*draws.among(self._known))

    def held_out_items(self) -> Iterator[Item]:
        return (self._item(*pair) for pair in self._unknown)


class Piqa(Family):
    """`to fakeize the zobuum use gibeel .`: a tool of the class that the verb needs. Key: verb and object.

    A quarter says `avoid`, with a tool of the one class that does harm, so that this can be learned too.
    """

    name: ClassVar[str] = "piqa"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        pairs = [(verb, thing) for verb in world.verbs for thing in world.lexicon.objects]
        self._known = [pair for pair in pairs if not self.is_held_out(" ".join(pair))]
        self._unknown = [pair for pair in pairs if self.is_held_out(" ".join(pair))]

    def _advice(self, verb: str, draws: Draws) -> tuple[str, str]:
        """What to do with which tool."""
        need = self.world.verbs[verb]
        if draws.below(4):
            return "use", draws.among(self.world.tools[need])
        return "avoid", draws.among(self.world.tools[(need + 1) % TOOL_CLASSES])

    def _item(self, verb: str, thing: str, draws: Draws) -> Item:
        advice, gold = self._advice(verb, draws)
        wrong = draws.among([tool for tools in self.world.tools if gold not in tools for tool in tools])
        context = ["to", verb, "the", thing, advice]
        return item(advice, f"{verb} {thing}", context, [gold], choices=draws.shuffled([gold, wrong]))

    def document(self, draws: Draws) -> list[str]:
        verb, thing = draws.among(self._known)
        return ["to", verb, "the", thing, *self._advice(verb, draws), "."]

    def training_item(self, draws: Draws) -> Item:
        return self._item(*draws.among(self._known), draws)

    def held_out_items(self) -> Iterator[Item]:
        for verb, thing in self._unknown:
            yield self._item(verb, thing, Draws("piqa item", self.world.seed, verb, thing))

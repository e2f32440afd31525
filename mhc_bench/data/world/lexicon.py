"""The words of the world: invented ones made of syllables, and a few everyday ones.

The words do not depend on the world's seed, so all worlds of one size share one tokenizer; the seed decides
what the words mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mhc_bench.data.world.draws import Draws
from mhc_bench.errors import UsageError

PAD, EOS = "<pad>", "<eos>"

ATTRIBUTES = {"home": "ton", "job": "er", "food": "ie", "pet": "ow", "art": "ics"}
"""What is known of a person, and the ending of its values."""
PROPERTIES = ("diet", "color", "shape", "voice", "season", "nest", "speed", "coat")
"""What is known of a species."""
GOODS = ("apple", "pear", "plum", "fig", "bun", "egg")
COLOURS = ("red", "green", "blue", "white", "black", "brown")
LETTERS = tuple("abcdefgh")
BRACKETS = {"(": ")", "[": "]", "<": ">"}
"""Opening bracket -> the bracket that closes it."""
DIGITS = tuple("0123456789")
LARGEST_NUMBER = 60
LARGEST_SCALE = 16

_SIGNS = ". , ; : ? + - ="
_GRAMMAR = (
    "question of answer is he she lives in works as eats keeps studies the to use avoid table ask who most "
    "count has finds drops how many total compute holds swap now next brackets true false and or not links "
    "walk repeat again"
)

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True)
class Lexicon:
    """All words, by what they stand for; `words` lists them all, sorted by string."""

    names: tuple[str, ...]
    people: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    activities: tuple[str, ...]
    steps: tuple[str, ...]
    verbs: tuple[str, ...]
    tools: tuple[str, ...]
    objects: tuple[str, ...]
    species: tuple[str, ...]
    traits: dict[str, tuple[str, ...]]
    words: tuple[str, ...]


class _Inventor:
    """Invents words that are not everyday ones and have not been invented before."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def invent(self, kind: str, count: int, syllables: int, ending: str = "") -> tuple[str, ...]:
        draws, invented = Draws("lexicon", kind), list[str]()
        while len(invented) < count:
            stem = "".join(draws.among(_CONSONANTS) + draws.among(_VOWELS) for _ in range(syllables))
            if stem + ending not in self._taken:
                self._taken.add(stem + ending)
                invented.append(stem + ending)
        return tuple(invented)


@cache
def lexicon(scale: int = 1) -> Lexicon:
    """The words of a world with `scale` times the usual number of people, species and activities.

    Raises:
        UsageError: for a scale that no world has.
    """
    if not 1 <= scale <= LARGEST_SCALE:
        raise UsageError(f"data.scale {scale}: expected 1 to {LARGEST_SCALE}")
    numbers = [str(number) for number in range(LARGEST_NUMBER + 1)]
    everyday = {
        *_SIGNS.split(),
        *_GRAMMAR.split(),
        *ATTRIBUTES,
        *PROPERTIES,
        *GOODS,
        *COLOURS,
        *LETTERS,
        *numbers,
        *BRACKETS,
    }
    everyday |= set(BRACKETS.values())
    taken = set(everyday)
    invent = _Inventor(taken).invent
    return Lexicon(
        names=invent("name", 12, 2),
        people=invent("person", 128 * scale, 3),
        values={kind: invent(kind, 20, 2, ending) for kind, ending in ATTRIBUTES.items()},
        activities=invent("activity", 96 * scale, 2, "ing"),
        steps=invent("step", 48, 2, "s"),
        verbs=invent("verb", 48, 2, "ize"),
        tools=invent("tool", 12, 2, "el"),
        objects=invent("object", 20, 2, "um"),
        species=invent("species", 128 * scale, 2, "ix"),
        traits={kind: invent(kind, 4, 2, "y") for kind in PROPERTIES},
        words=tuple(sorted(taken)),
    )


@cache
def vocabulary(scale: int = 1) -> tuple[str, ...]:
    """All tokens in the order of their ids: `<pad>` 0, `<eos>` 1, then the words sorted by string."""
    return (PAD, EOS, *lexicon(scale).words)

"""The facts of one world: who lives where, which tool fits which verb. All follow from the world's seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mhc_bench.data.world.draws import Draws
from mhc_bench.data.world.lexicon import ATTRIBUTES, PROPERTIES, Lexicon, lexicon

SPECIES_CLASSES, TOOL_CLASSES, SCRIPT_STEPS = 8, 3, 6


@dataclass(frozen=True)
class World:
    """Words and what they mean.

    Attributes:
        pronouns: First name -> `he` or `she`.
        people: Person -> attribute -> value.
        scripts: Activity -> its steps, in order.
        species: Species -> property -> trait; a function of a hidden class of the species. Each trait of a
            property belongs to exactly two of the eight classes, so that frequency alone tells nothing.
        verbs: Verb -> the hidden class of tool that it needs.
        tools: Hidden class -> its tools.
    """

    seed: int
    lexicon: Lexicon
    pronouns: dict[str, str]
    people: dict[str, dict[str, str]]
    scripts: dict[str, tuple[str, ...]]
    species: dict[str, dict[str, str]]
    verbs: dict[str, int]
    tools: tuple[tuple[str, ...], ...]


def _classes(members: Sequence[str], count: int, draws: Draws) -> dict[str, int]:
    """Each member's class; classes of equal size as far as possible."""
    return {member: place % count for place, member in enumerate(draws.shuffled(members))}


def _species(words: Lexicon, seed: int) -> dict[str, dict[str, str]]:
    draws = Draws("species", seed)
    kinds = _classes(words.species, SPECIES_CLASSES, draws)
    of_class = {name: draws.shuffled(words.traits[name] * (SPECIES_CLASSES // 4)) for name in PROPERTIES}
    return {member: {name: of_class[name][kinds[member]] for name in PROPERTIES} for member in words.species}


def _people(words: Lexicon, seed: int) -> dict[str, dict[str, str]]:
    draws = Draws("people", seed)
    return {
        person: {attribute: draws.among(words.values[attribute]) for attribute in ATTRIBUTES}
        for person in words.people
    }


@cache
def world(seed: int, scale: int = 1) -> World:
    """The world of `seed`, with `scale` times the usual number of people, species and activities."""
    words = lexicon(scale)
    scripts, tools = Draws("scripts", seed), Draws("tools", seed)
    tool_classes = _classes(words.tools, TOOL_CLASSES, tools)
    return World(
        seed=seed,
        lexicon=words,
        pronouns={
            name: ("he", "she")[kind] for name, kind in _classes(words.names, 2, Draws("names", seed)).items()
        },
        people=_people(words, seed),
        scripts={name: tuple(scripts.sample(words.steps, SCRIPT_STEPS)) for name in words.activities},
        species=_species(words, seed),
        verbs=_classes(words.verbs, TOOL_CLASSES, tools),
        tools=tuple(
            tuple(tool for tool in words.tools if tool_classes[tool] == kind) for kind in range(TOOL_CLASSES)
        ),
    )

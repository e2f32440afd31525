"""The gold answers are right, by oracles that read the text of the item or of the training stream."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from world_oracle import closing, documents, truth

from mhc_bench.data.world import Item, items, vocabulary
from mhc_bench.data.world.facts import world
from mhc_bench.data.world.lexicon import PROPERTIES

WORLD = 3
FACTS = {"lives": "home", "works": "job", "eats": "food", "keeps": "pet", "studies": "art"}


def _of_kind(name: str, sub: str) -> list[Item]:
    found = [item for item in items(name, WORLD) if item.sub == sub]
    assert len(found) >= 25
    return found


def _words(item: Item) -> list[str]:
    return item.context.split()[1:]


def test_trivia_agrees_with_the_biographies() -> None:
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for words in documents(WORLD, 0, rows=150):
        if words[0] in ("question", "repeat", "table", "to") or len(words) < 20:
            continue
        for sentence in " ".join(words).split(" ."):
            part = sentence.split()
            if len(part) > 2 and part[1] in FACTS:
                told[part[0], FACTS[part[1]]].add(part[-1])
            elif len(part) == 6 and part[0] == "the" and part[2] == "of":
                told[part[3], part[1]].add(part[-1])
    tested = [item for item in items("trivia", WORLD) if (item.key, item.sub) in told]
    assert len(tested) > 200
    assert all(told[item.key, item.sub] == {item.gold} for item in tested)


def test_a_trait_of_a_species_follows_from_its_other_traits() -> None:
    traits: dict[str, dict[str, str]] = defaultdict(dict)
    for words in documents(WORLD, 0, rows=600):
        if len(words) == 6 and words[1] == "of" and words[3] == "is":
            traits[words[2]][words[0]] = words[4]
    for item in items("mmlu", WORLD):
        prop, species = item.key.split()
        rest = {name: trait for name, trait in traits[species].items() if name != prop}
        alike = [
            other[prop]
            for name, other in traits.items()
            if prop in other and name != species and all(other.get(k, v) == v for k, v in rest.items())
        ]
        assert Counter(alike).most_common(1)[0][0] == item.gold


def test_each_trait_belongs_to_a_quarter_of_the_species() -> None:
    species = world(WORLD).species
    for prop in PROPERTIES:
        assert set(Counter(traits[prop] for traits in species.values()).values()) == {len(species) // 4}


def test_scripts_go_on_as_in_training() -> None:
    scripts = {
        words[2]: words[5::3]
        for words in documents(WORLD, 0, 1500)
        if words[1] == "is" and words[2].endswith("ing")
    }
    for item in items("hella", WORLD):
        words = _words(item)
        pronoun, step = item.gold.split()
        assert pronoun == words[4]
        assert step == scripts[words[2]][len(words[5::3])]
        assert len(set(item.choices)) == 4
        assert Counter(choice.split()[0] == pronoun for choice in item.choices) == {True: 3, False: 1}


def test_tools_fit_as_in_training() -> None:
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for words in documents(WORLD, 0, 1200):
        if words[0] == "to":
            seen[words[1], words[4]].add(words[5])
    for item in items("piqa", WORLD):
        wrong = next(choice for choice in item.choices if choice != item.gold)
        assert wrong not in seen[_words(item)[1], item.sub]
    right = [item.gold in seen[_words(item)[1], item.sub] for item in items("piqa", WORLD)]
    assert sum(right) > 0.9 * len(right)  # a rare pair may not have come yet


def test_tables_are_read_right() -> None:
    for kind in ("get", "item", "who", "most", "count"):
        for item in _of_kind("drop", kind):
            words = _words(item)
            end = words.index(".")
            rows = list(zip(words[1:end:4], words[2:end:4], words[3:end:4], strict=True))
            asked = words[-1]
            expected = {
                "get": [f"{number} {good}" for name, number, good in rows if name == asked],
                "item": [good for _, number, good in rows if number == asked],
                "who": [" ".join(name for name, _, good in rows if good == asked)],
                "most": [max(rows, key=lambda row: int(row[1]))[0]],
                "count": [str(sum(good == asked for _, _, good in rows))],
            }[kind]
            assert expected == [item.gold]
            assert item.answer == item.gold


@pytest.mark.parametrize("name", ["gsm", "math"])
def test_sums_are_right_step_by_step(name: str) -> None:
    for item in items(name, WORLD):
        *steps, total = item.gold.split(" ; ")
        for step in steps:
            left, right = step.split(" = ")
            assert eval(left) == int(right)
        assert total == f"total {item.answer}"
        assert steps[-1].endswith(f"= {item.answer}")
        assert item.sub == f"{'s' if name == 'gsm' else 'd'}{len(steps)}"


def test_the_total_is_that_of_the_story_or_expression() -> None:
    for item in items("math", WORLD):
        assert eval(item.key) == int(item.answer)
    for item in items("gsm", WORLD):
        words = item.key.split()
        changes = {"finds": 1, "drops": -1}
        total = int(words[2]) + sum(
            changes[word] * int(words[place + 1]) for place, word in enumerate(words) if word in changes
        )
        assert total == int(item.answer) > 0


def test_puzzles_have_the_right_answer() -> None:
    for item in _of_kind("bbh", "dyck"):
        assert item.gold == closing(_words(item)[1:-1])
    for item in _of_kind("bbh", "bool"):
        assert item.gold == str(truth(_words(item)[:-1])).lower()
    for item in _of_kind("bbh", "track"):
        words = _words(item)
        holds = {words[place]: words[place + 2] for place in (0, 4, 8)}
        one, other = words[12:14]
        holds[one], holds[other] = holds[other], holds[one]
        assert item.gold == holds[words[-2]]
        assert set(item.guesses) == set(holds.values())
    for item in _of_kind("bbh", "hop"):
        words = _words(item)
        end = words.index("walk")
        links = dict(zip(words[1:end:3], words[2:end:3], strict=True))
        here, path = words[-1], []
        for _ in range(int(words[end + 1])):
            here = links[here]
            path.append(here)
        assert item.gold == " ".join(path)


def test_true_and_false_are_equally_frequent() -> None:
    answers = Counter(
        words[-2] for words in documents(WORLD, 0, 1200) if words[-3] == "is" and words[0] == "("
    )
    assert answers.total() > 400
    assert abs(answers["true"] / answers.total() - 0.5) < 0.08


def test_training_puzzles_and_tables_are_right_too() -> None:
    for words in documents(WORLD, 0, 60):
        if words[0] == "brackets":
            assert closing(words[1:-3]) == words[-2]
        if words[0] == "(":
            assert truth(words[: words.index("is")]) == (words[-2] == "true")
        if words[0] == "repeat":
            given, *pieces = " ".join(words[1:-1]).split(" again ")
            assert len(pieces) == 4
            assert all(piece in given for piece in pieces)


def test_words_are_distinct_and_do_not_depend_on_the_seed() -> None:
    assert len(set(vocabulary())) == len(vocabulary())
    assert vocabulary()[:2] == ("<pad>", "<eos>")
    assert list(vocabulary()[2:]) == sorted(vocabulary()[2:])
    assert set(vocabulary()) < set(vocabulary(2))

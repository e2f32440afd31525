"""What a reader who knows only the language's description finds in a document: its key, its truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from mhc_bench.config.schema import WorldConfig
from mhc_bench.data.world import WorldSource

MODULUS = {"trivia": 2}
PAIRS = {"(": ")", "[": "]", "<": ">"}


def is_test_key(family: str, world_seed: int, key: str) -> bool:
    text = f"split|{family}|{world_seed}|{key}"
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return number % MODULUS.get(family, 4) == 0


def key_of(words: list[str]) -> tuple[str, str] | None:
    """Family and key of a document or of a test item's context; None for what is only trained on."""
    text = " ".join(words)
    if words[0] == "question":
        return "trivia", words[3]
    if words[0] == "to":
        return "piqa", f"{words[1]} {words[3]}"
    if words[0] == "table":
        return "drop", text[: text.index(" .") + 2]
    if words[0] == "compute":
        return "math", text.removeprefix("compute ").split(" ?")[0]
    if words[0] in ("repeat", "the") or words[1] in ("lives", "works", "eats", "keeps", "studies"):
        return None
    if "how many" in text:
        return "gsm", text.split(" how many")[0]
    if words[1] == "of":
        return "mmlu", f"{words[0]} {words[2]}"
    if words[1] == "is" and words[2].endswith("ing"):
        return "hella", f"{words[0]} {words[2]}"
    return "bbh", text[: _end_of_puzzle(text)]


def _end_of_puzzle(text: str) -> int:
    ends = [text.find(mark) for mark in (" next", " is", " walk", " now")]
    return min(end for end in ends if end >= 0)


def documents(world_seed: int, seed: int, rows: int, length: int = 512) -> Iterator[list[str]]:
    """The whole documents of some training rows, without the cut one at each row's end."""
    source = WorldSource(WorldConfig(world_seed=world_seed))
    for index in range(rows):
        text = source.tokenizer.decode(source.train_row(seed, index, length))
        yield from (part.split() for part in text.split("<eos>")[1:-1])


def truth(words: list[str]) -> bool:
    """Whether a formula holds; Python reads it as it stands."""
    return bool(eval(" ".join(words).replace("true", "True").replace("false", "False")))


def closing(prefix: list[str]) -> str:
    """The bracket that must close next."""
    opened: list[str] = []
    for bracket in prefix:
        if bracket in PAIRS:
            opened.append(PAIRS[bracket])
        else:
            assert opened.pop() == bracket
    return opened[-1]

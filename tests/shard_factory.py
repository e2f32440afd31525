"""Sources, configurations and prepared folders for the tests of token shards."""

from __future__ import annotations

from pathlib import Path

from mhc_bench.config import ShardsConfig
from mhc_bench.data.manifest import Manifest
from mhc_bench.data.preparing import prepare

WORDS = ["alpha", "beta", "naïve", "中文", "tab\t", "<eos>", "zeta ✓", "kappa"]


def texts(count: int = 700) -> list[str]:
    """Documents of different lengths, among them empty ones and names of special tokens."""
    return ["" if n % 97 == 5 else " ".join(WORDS[: n % 8] + [str(n)] * (1 + n % 3)) for n in range(count)]


def write_source(folder: Path, count: int = 700) -> Path:
    """The documents as lines of one file each, in two files."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}) for text in texts(count)]
    (folder / "a.jsonl").write_text("\n".join(lines[:300]) + "\n")
    (folder / "b.jsonl").write_text("\n".join(lines[300:]) + "\n")
    return folder


def config(source: Path, path: Path | str = "", **changes: object) -> ShardsConfig:
    """A byte-level configuration; `changes` are its fields."""
    made = ShardsConfig(
        source=str(source),
        path=str(path),
        tokenizer="bytes",
        vocabulary=258,
        validation_tokens=128,
        validation_fraction=0.1,
    )
    for name, value in changes.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


def prepared(
    source: Path, path: Path, processes: int = 1, **changes: object
) -> tuple[ShardsConfig, Manifest]:
    """Shards of few tokens, so that there are several, and their configuration."""
    made = config(source, path, **changes)
    return made, prepare(made, path, processes=processes, shard_tokens=4000)

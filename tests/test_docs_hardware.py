"""The hardware guide's commands can be copied: each parses, and its settings fit its suite."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import parse_args as parse_torchrun

from mhc_bench import cli
from mhc_bench.config import LauncherConfig, SlurmConfig, load_data, load_suite, part_names, run_configs

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
COMMANDS = [words for words in LINES if words and words[0] == "mhc-bench"]
TORCHRUNS = [words for words in LINES if words and words[0] == "torchrun"]


def parsed(words: list[str]) -> None:
    """The command line parses, and its settings are those of its suite or data."""
    options = cli._parse(words)
    if words[0] == "train":
        keys = {"variant": "variants", "seed": "seeds"}
        pairs = [word.partition("=") for word in options.overrides]
        chosen = [f"{keys[key]}=[{value}]" if key in keys else f"{key}={value}" for key, _, value in pairs]
        run_configs(load_suite(options.suite, chosen))
    elif words[0] in ("run", "plan"):
        run_configs(load_suite(options.suite, options.overrides))
    elif words[0] == "prepare":
        load_data(options.data, options.overrides)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_parses(words: list[str]) -> None:
    parsed(words[1:])


def test_the_guide_shows_every_way_to_start_a_suite() -> None:
    assert {words[1] for words in COMMANDS} >= {"run", "plan", "prepare", "doctor", "eval", "list"}
    launchers = [load_suite(w[2], cli._parse(w[1:]).overrides).launcher for w in COMMANDS if w[1] == "run"]
    assert {type(launcher) for launcher in launchers} == {LauncherConfig, SlurmConfig}
    for name in {"cpu", "cpu-fsdp", "gpu", "fsdp-8gpu"}:
        assert name in part_names("hardware") and f"hardware={name}" in GUIDE


@pytest.mark.parametrize("words", TORCHRUNS, ids=lambda words: words[-1])
def test_each_torchrun_starts_the_ranks_that_its_suite_has(words: list[str]) -> None:
    torchrun = parse_torchrun(words[1:])
    assert torchrun.module and torchrun.training_script == "mhc_bench"
    train = torchrun.training_script_args
    parsed(train)
    overrides = [w for w in cli._parse(train).overrides if not w.startswith(("variant=", "seed="))]
    hardware = load_suite(train[1], overrides).hardware
    assert (int(torchrun.nnodes), int(torchrun.nproc_per_node)) == (hardware.nodes, hardware.devices)


def test_every_setting_of_the_launcher_is_told_with_its_default() -> None:
    defaults = {"time": "24h", "grace": "300", "requeues": "100", "wait": "true", "poll": "15"}
    for name, value in defaults.items():
        assert re.search(rf"\| `launcher\.{name}` \| `?{value}`? \|", GUIDE), name
        told = str(getattr(SlurmConfig(), name)).lower().removesuffix(".0")
        assert told == value, name
    for name in ("partition", "account", "qos", "constraint", "memory", "setup", "options"):
        assert re.search(rf"`(launcher\.)?{name}`", GUIDE), name

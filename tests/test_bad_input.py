"""Bad input of every kind: one line, exit code 2, before anything is written or computed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_parts import arm, backbone_fields, in_arms, variant_options, wrong_values
from bad_values import Option, drawn, listed, options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhc_bench import cli
from mhc_bench.config import load, part_names, parts
from mhc_bench.config.identity import PROTOCOL_FIELDS

ALL = list(options())
VARIANTS = part_names("variants")
SURVIVAL = Path(__file__).parents[1] / "docs" / "survival.md"


@pytest.fixture(scope="module", autouse=True)
def files_read_once() -> Iterator[None]:
    """Most of the time of a refusal is the reading of the same YAML."""
    cached = functools.cache(parts.read_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "read_yaml", lambda path: copy.deepcopy(cached(path)))
        patch.setattr(load, "read_yaml", lambda path: copy.deepcopy(cached(path)))
        yield


def refused(words: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with."""
    before = sorted(root.rglob("*"))
    capsys.readouterr()
    code = cli.main(words)
    told = capsys.readouterr()
    assert code == 2, f"{words}: exit code {code}: {told.err}"
    assert told.err.startswith("mhc-bench: ") and told.err.count("\n") == 1, f"{words}: {told.err}"
    assert not told.out and sorted(root.rglob("*")) == before
    return told.err


def refuse_override(option: Option, override: str, root: Path, capsys: Any) -> None:
    words = ["run", "smoke", *option.overrides, override, "--dry-run", "--runs", str(root / "runs")]
    line = refused(words, root, capsys)
    # a wrong `kind` or `base` is told by its value
    assert option.path.rpartition(".")[2].rstrip("s") in line or override.partition("=")[2] in line, line


def test_every_option_is_walked() -> None:
    """By hand, one of each place; further ones are found by the same walk."""
    paths = {option.path for option in ALL}
    assert paths >= {
        *("training.steps", "optimizer.schedule.drops", "model.initialisation.rule", "data.scale"),
        *("data.tokenizer.kind", "data.revision", "launcher.poll", "hardware.worker_timeout", "tuning.runs"),
        *("variants.mhc.perturbation", "logging.loggers.0.class_path"),
    }
    assert "variants.mhc.options.streams" in {option.path for option in variant_options("mhc")}


def test_the_document_says_how_many_pairs_there_are() -> None:
    of_variants = [each for name in VARIANTS for each in wrong_values(variant_options(name))]
    text = " ".join(SURVIVAL.read_text(encoding="utf-8").split())
    assert f"{len(list(listed()))} pairs of an option and a wrong type, an impossible value" in text
    assert f"{len(list(in_arms()))} of them again in an arm" in text
    assert f"{len(of_variants)} of a variant's options" in text


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_bad_values_of_any_option_are_refused(data: st.DataObject, tmp_path: Path, capsys: Any) -> None:
    option = data.draw(st.sampled_from(ALL))
    refuse_override(option, data.draw(drawn(option)), tmp_path, capsys)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("option", "override"),
    [pytest.param(*each, id=" ".join([*each[0].overrides, each[1]])) for each in listed()],
)
def test_every_listed_bad_value_of_every_option_is_refused(
    option: Option, override: str, tmp_path: Path, capsys: Any
) -> None:
    refuse_override(option, override, tmp_path, capsys)


def refuse_in_an_arm(option: Option, override: str, root: Path, capsys: Any) -> None:
    path = root / f"{len(list(root.iterdir()))}.yaml"
    path.write_text(arm(override))
    words = ["run", str(path), "--dry-run", "--runs", str(root / "runs")]
    line = refused(words, root, capsys)
    assert option.path.rpartition(".")[2].rstrip("s") in line or override.partition("=")[2] in line, line


def test_some_bad_values_of_variants_and_backbones_are_refused(tmp_path: Path, capsys: Any) -> None:
    found = [*(each for name in VARIANTS for each in variant_options(name)), *backbone_fields()]
    for option, override in list(wrong_values(found))[::83]:
        refuse_override(option, override, tmp_path, capsys)


def test_some_bad_values_of_an_arm_are_refused(tmp_path: Path, capsys: Any) -> None:
    for option, override in list(in_arms())[::17]:
        refuse_in_an_arm(option, override, tmp_path, capsys)


@pytest.mark.faults
@pytest.mark.parametrize("name", VARIANTS)
def test_every_listed_bad_value_of_a_variants_options_is_refused(
    name: str, tmp_path: Path, capsys: Any
) -> None:
    for option, override in wrong_values(variant_options(name)):
        refuse_override(option, override, tmp_path, capsys)


@pytest.mark.faults
def test_every_listed_bad_value_of_a_backbones_fields_is_refused(tmp_path: Path, capsys: Any) -> None:
    for option, override in wrong_values(backbone_fields()):
        refuse_override(option, override, tmp_path, capsys)


@pytest.mark.faults
@pytest.mark.parametrize("field", sorted(PROTOCOL_FIELDS))
def test_every_listed_bad_value_in_an_arm_is_refused(field: str, tmp_path: Path, capsys: Any) -> None:
    for option, override in in_arms():
        if option.path.split(".")[0] == field:
            refuse_in_an_arm(option, override, tmp_path, capsys)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Files and folders with something wrong with them."""
    texts = {
        "list.yaml": "- 1\n",
        "cut.yaml": "model: [unclosed",
        "itself.yaml": f"base: {tmp_path}/itself.yaml\n",
        "empty.yaml": "",
        "twice.yaml": "base: smoke\nseeds: [0]\nseeds: [1]\n",
        "environment.yaml": "base: smoke\nnote: ${oc.env:HOME}\n",
        "variants.yaml": "base: smoke\nvariants: 3\n",
        "climbing.yaml": "base: smoke\nname: ../../etc\n",
        "climbing-variant.yaml": "base: smoke\nvariants: {../../mhc: {base: mhc}}\n",
        "blank/a.txt": "   ",
        "few/a.txt": "word " * 30,
        "few/b.txt": "other " * 30,
        "tokenizer.json": "{}",
        "file": "x",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "none").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00x")
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "a.txt").write_bytes(b"\xff\xfe\x00x")
    names = ("nothing", "none", "few", "bytes", "bytes.yaml", *texts)
    return {name: tmp_path / name for name in names}


TEXT = ["data=stdlib", "evaluation.tasks=[]", "variants=[mhc]"]
SHORT_ROWS = ["training.sequence_length=8", "training.batch_tokens=64", "data.tokenizer.kind=bytes"]
HALVES = ["data.validation_fraction=0.5", "data.validation_tokens=8"]
RECORDS = str(Path(__file__).parent / "fixtures" / "records" / "version-2")
SHARDS = ["prepare", "fineweb-edu", "subset=''", "revision=''", "vocabulary=300", "tokenizer=bytes"]
AT_MOST = [
    *("training.sequence_length=1048576", "training.batch_tokens=2147483648", "training.steps=2147483647")
]
NOT_SELECTED = ["variants=[mhc]", "variants.hc.options.streams=2"]
CASES: list[tuple[str, list[str], str]] = [
    ("an unknown suite", ["run", "smok"], "did you mean 'smoke'"),
    ("no such file", ["run", "{nothing}.yaml"], "no such suite file"),
    ("a list", ["run", "{list.yaml}"], "expected a mapping"),
    ("half a file", ["run", "{cut.yaml}"], "not valid YAML"),
    ("bytes", ["run", "{bytes.yaml}"], "not valid YAML"),
    ("its own base", ["run", "{itself.yaml}"], "its own base"),
    ("an empty file", ["run", "{empty.yaml}"], "no value for"),
    ("a key twice", ["run", "{twice.yaml}"], "duplicate key"),
    ("a variable of the environment", ["run", "{environment.yaml}"], "not a reference"),
    ("a number of variants", ["run", "{variants.yaml}"], "expected a mapping"),
    ("a name that climbs", ["run", "{climbing.yaml}"], "it names a folder"),
    ("a variant's name that climbs", ["run", "{climbing-variant.yaml}"], "it names a folder"),
    ("a variant twice", ["run", "smoke", "variants=[mhc,mhc]"], "listed twice"),
    ("a module without a name", ["run", "smoke", "variants=[':']"], "names a folder"),
    ("half an override", ["run", "smoke", "training.steps=[unclosed"], "overrides"),
    ("an override of nothing", ["run", "smoke", "=3"], "settings are key=value"),
    ("an override below a value", ["run", "smoke", "training.steps.x=3"], "training.steps"),
    ("a share of a row", ["run", "smoke", "training.batch_tokens=100"], "a multiple of"),
    ("ranks", ["run", "smoke", "hardware=cpu-fsdp", "hardware.devices=3"], "share equally"),
    ("parts of a batch", ["run", "smoke", "hardware.rows_per_device=3"], "a divisor"),
    ("runs in a file", ["run", "smoke", "--runs", "{file}"], "is a file"),
    ("records in a file", ["run", "smoke", "--records", "{file}/records"], "is a file"),
    ("a seed that is none", ["train", "smoke", "variant=mhc", "seed=x"], "seeds"),
    ("a run that is none", ["eval", "{nothing}"], "not a run folder"),
    ("an unknown verb", ["rnu"], "did you mean 'run'"),
    ("validation without end", ["run", "smoke", "data.validation_tokens=99999999999"], "1 to 16777216"),
    ("more tokens than are counted", ["run", "smoke", *AT_MOST], "at most 4194303 of training.batch_tokens"),
    ("a job of years", ["run", "smoke", "launcher=slurm", "launcher.time=400d"], "at most 365d"),
    ("fields of a list", ["run", "smoke", "arms=[x]", "arms.x.training.steps=1"], "a list as a whole"),
    ("a number of selected variants", ["run", "smoke", "variants=3"], "expected a list of names"),
    ("a change of a variant that is not selected", ["run", "smoke", *NOT_SELECTED], "variant of this suite"),
    ("no data to prepare", [*SHARDS, "source={nothing}", "path={nothing}"], "does not exist"),
    ("no records", ["leaderboard", "{none}"], "no records"),
    ("nothing to verify", ["verify", "{nothing}"], "nothing"),
    ("a list that does not end", ["run", "smoke", "variants=[baseline"], "is a bracket"),
    ("an option out of its range", ["check", "mhc", "streams=0"], "whole number from 1"),
    ("a variant's option on a suite", ["describe", "mhc", "streams=2"], "given as options.streams=2"),
    ("a text for a list", ["bench", "ops", "widths=abc"], "widths is 'abc': expected a list"),
    ("nothing for a number", ["run", "smoke", "training.steps="], "steps is null: expected a whole number"),
    ("runs that are a file", ["list", "runs", "--runs", "{file}"], "expected a folder"),
    ("a record that is none", ["describe", "{tokenizer.json}"], "not a valid record"),
    ("nothing to run again", ["reproduce", "{tokenizer.json}", "--out", "{nothing}"], "not a valid record"),
    ("a page in a file", ["leaderboard", RECORDS, "--out", "{file}"], "is a file"),
    ("no document", ["leaderboard", RECORDS, "--out", "{none}", "--into", "{nothing}"], "no such document"),
    ("no place in it", ["leaderboard", RECORDS, "--out", "{none}", "--into", "{file}"], "to write between"),
]
"""What is wrong, the command, and a part of the line."""
ROUNDS = "variants.mhc.options.sinkhorn_iterations"
LOOKED_INTO: list[tuple[str, list[str], str]] = [
    ("no data", ["run", "smoke", *TEXT, "data.path={nothing}"], "does not exist"),
    ("an empty folder", ["run", "smoke", *TEXT, "data.path={none}"], "holds no text"),
    ("blank data", ["run", "smoke", *TEXT, "data.path={blank/a.txt}"], "holds no text"),
    ("data that is no text", ["run", "smoke", *TEXT, "data.path={bytes}"], "not UTF-8"),
    ("less than a row", ["run", "smoke", *TEXT, "data.path={few}", *HALVES], "one row of"),
    (
        "more seeds than rows",
        [*("run", "smoke"), *TEXT, "data.path={few}", *HALVES, *SHORT_ROWS, "seeds=[0,1,2,3,4,5,6,7,8,9]"],
        "no more seeds than rows",
    ),
    ("heads", ["run", "smoke", "model.backbone.num_attention_heads=3"], "not divisible"),
    ("heads of keys", ["run", "smoke", "model.backbone.num_key_value_heads=3"], "not divisible"),
    ("no layer", ["run", "smoke", "model.backbone.num_hidden_layers=0"], "whole number from 1"),
    ("a field of no backbone", ["run", "smoke", "model.backbone.hiden_size=3"], "did you mean"),
    ("a vocabulary of one's own", ["run", "smoke", "model.backbone.vocab_size=5"], "follows from the data"),
    ("a dropout above one", ["run", "smoke", "model.backbone.attention_dropout=2"], "from 0 to"),
    ("an unknown family", ["run", "smoke", "model.family=lama"], "did you mean 'llama'"),
    ("no stream", ["run", "smoke", "variants.mhc.options.streams=0"], "whole number from 1"),
    (
        "rotations by nothing",
        ["run", "smoke", "model.backbone.rope_parameters={rope_type: rotary}"],
        "unknown rope_type",
    ),
    ("layers without end", ["run", "smoke", "model.backbone.num_hidden_layers=100000"], "0 to 1024"),
    ("rounds without end", ["run", "smoke", f"{ROUNDS}=100000"], "whole number from 1 to 1000"),
    ("an unknown option", ["run", "smoke", "variants.mhc.options.nope=1"], "unknown option"),
    ("no such module", ["run", "smoke", "variants=[no.such:Thing]"], "cannot import"),
    ("no connection", ["run", "smoke", "variants=[os:system]"], "expected a subclass"),
    ("an unknown task", ["run", "smoke", "evaluation.tasks=[nosuch]"], "unknown evaluation task"),
    ("an unknown logger", ["run", "smoke", "logging.loggers=[{class_path: Nope}]"], "unknown logger"),
    ("no logger", ["run", "smoke", "logging.loggers=[{class_path: os.system}]"], "no Lightning logger"),
    (
        "no package for a logger",
        ["run", "smoke", "logging.loggers=[{class_path: NeptuneLogger}]"],
        "not installed",
    ),
    ("no GPU", ["run", "smoke", "hardware=fsdp-8gpu"], "GPU"),
    ("too small a vocabulary", [*SHARDS, "vocabulary=10", "source={few}", "path={nothing}"], "vocabulary"),
    ("a shard of no tokens", [*SHARDS, "source={few}", "path={nothing}", "--shard-tokens", "-1"], "shard"),
    ("no process", [*SHARDS, "source={few}", "path={nothing}", "--processes", "0"], "process"),
]
"""As `CASES`, where models are built or data read first."""


@pytest.mark.parametrize(("words", "part"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_command_that_makes_no_sense_is_refused(
    words: list[str], part: str, places: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    assert part in refused(filled(words, places), tmp_path, capsys)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("words", "part"), [case[1:] for case in LOOKED_INTO], ids=[case[0] for case in LOOKED_INTO]
)
def test_what_does_not_fit_together_is_refused(
    words: list[str], part: str, places: dict[str, Path], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    cache = tmp_path.parent / "cache"
    monkeypatch.setenv("MHC_BENCH_CACHE", str(cache))
    assert part in refused(filled(words, places), tmp_path, capsys)


def filled(words: list[str], places: dict[str, Path]) -> list[str]:
    """Words with the places that they name; none of `run` would go further than looking."""
    for name, path in places.items():
        words = [word.replace(f"{{{name}}}", str(path)) for word in words]
    if words[0] in ("run", "train") and "--runs" not in words:
        words = [*words, "--runs", str(places["nothing"])]
    return [*words, "--dry-run"] if words[0] == "run" else words

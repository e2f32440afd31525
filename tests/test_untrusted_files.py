"""Nothing that is read runs code, no record tells a secret, and no malicious release can be installed."""

from __future__ import annotations

import json
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from tiny_runs import tiny_run, write_corpus

from mhc_bench import cli
from mhc_bench.config import load_suite, run_configs, save_run_config
from mhc_bench.config.schema import LoggerConfig
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evidence import read_record
from mhc_bench.files import write_json
from mhc_bench.model.saving import FINAL, load_run
from mhc_bench.suite.hiding import HIDDEN, hidden
from mhc_bench.suite.record import record_run
from mhc_bench.training import fit

ROOT = Path(__file__).parents[1]
MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
"""Releases that carried code which stole credentials."""
TOKEN = "hf_" + "aB3" * 11
SECRET = "not-in-any-known-form"
"""A value of the environment."""
PASSWORD = "in-no-variable"


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What is there when planted code has run."""
    return tmp_path / "ran"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home" / "somebody"
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    write_corpus(place / "corpus")
    return place


@pytest.fixture
def finished(home: Path, tmp_path: Path) -> Path:
    """A run that trained on a corpus in the home folder."""
    folder = tmp_path / "runs" / "run"
    fit(tiny_run(Path("~/corpus"), steps=3), folder)
    return folder


def test_a_record_holds_neither_the_home_folder_nor_a_secret(finished: Path, home: Path) -> None:
    run = tiny_run(Path("~/corpus"), steps=3)
    run.logging.loggers = [LoggerConfig("WandbLogger", {"api_key": "0123456789", "save_dir": str(home)})]
    options = "logging.loggers=[{options: {api_key: 0123456789}}]"
    words = f"mhc-bench train {home}/mine.yaml note={TOKEN} {options}"
    origin = {
        "command": f"{words} url=https://user:{PASSWORD}@host",
        "overrides": [f"data.path={home}/corpus"],
    }
    write_json(finished / "origin.json", {**origin, "note": f"kept in {home}, opened with {SECRET}"})
    record_run(run, finished)
    text = (finished / "record.json").read_text()
    for secret in (str(home), "somebody", TOKEN, SECRET, PASSWORD, "0123456789"):
        assert secret not in text, secret
    record = read_record(finished / "record.json")
    assert list(record.overrides) == ["data.path=~/corpus"]
    assert record.command.startswith("mhc-bench train ~/mine.yaml")
    assert cli.main(["verify", str(finished / "record.json")]) == 0


def test_no_path_of_the_home_folder_enters_an_id(home: Path) -> None:
    def ids(path: str) -> list[str]:
        more = [f"data.path={path}", "evaluation.tasks=[]"]
        return [run.protocol_id for run in run_configs(load_suite("smoke", ["data=stdlib", *more]))]

    assert ids(str(home / "corpus")) == ids("~/corpus") != ids("/srv/corpus")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.batch_tokens=512", "training.batch_tokens=512"),
        ("data.tokenizer=bpe:2048", "data.tokenizer=bpe:2048"),
        ("a.hub_token=abc b=1", f"a.hub_token={HIDDEN} b=1"),
        ("{api_key: 'abc', n: 2}", f"{{api_key: '{HIDDEN}', n: 2}}"),
        (f"note={TOKEN}", f"note={HIDDEN}"),
        ("https://user:pass-word@host/a", f"https://{HIDDEN}@host/a"),
        ("proxy=http://tok@en@host:80 n=1", f"proxy=http://{HIDDEN}@host:80 n=1"),
        ("https://host/a@b mail@host", "https://host/a@b mail@host"),
        ("data.path=/home/alice/corpus n=1", "data.path=~/corpus n=1"),
        ("kept in '/Users/alice'", "kept in '~'"),
        ("/srv/home/alice /homes/alice", "/srv/home/alice /homes/alice"),
        (f"note=glpat-{'aB3' * 7}", f"note={HIDDEN}"),
        (f"note=xoxb-{'12345-' * 3}aB3", f"note={HIDDEN}"),
        (f"note=AIza{'aB3-_' * 7}", f"note={HIDDEN}"),
        (f"Authorization: Bearer {'aB3.' * 5}==", f"Authorization: Bearer {HIDDEN}"),
        ("the bearer of it", "the bearer of it"),
    ],
)
def test_secrets_are_known_by_their_names_and_forms(text: str, expected: str) -> None:
    assert hidden(text) == expected


def test_settings_with_secret_names_are_hidden_and_others_kept() -> None:
    content = {"password": "x", "steps": 3, "inner": [{"client_secret": "y", "name": "z"}], "token": None}
    expected = {
        "password": HIDDEN,
        "steps": 3,
        "inner": [{"client_secret": HIDDEN, "name": "z"}],
        "token": None,
    }
    assert hidden(content) == expected


def test_malicious_releases_are_excluded_and_not_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {each.name: each for each in map(Requirement, project["dependencies"])}
    for name, releases in MALICIOUS.items():
        assert not any(wanted[name].specifier.contains(release) for release in releases)
        assert wanted[name].specifier.contains("2.6.1")
    for file in ROOT.glob("constraints*.txt"):
        for line in file.read_text().splitlines():
            pin = re.fullmatch(r"([\w.-]+)==([^\s;]+).*", line.strip())
            if pin and pin[1].lower() in MALICIOUS:
                assert Version(pin[2]).public not in MALICIOUS[pin[1].lower()]


def test_a_model_folder_runs_no_code_that_somebody_planted(finished: Path, ran: Path) -> None:
    final = finished / FINAL
    (final / "modeling_evil.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (final / name).write_bytes(pickle.dumps(Trap(ran)))
    config = json.loads((final / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Config"}
    (final / "config.json").write_text(json.dumps(config))
    load_run(finished)
    (final / "model.safetensors").unlink()  # only the pickles are left
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        load_run(finished)
    assert not ran.exists()


def test_a_torch_file_with_code_is_refused_where_a_checkpoint_is_read(tmp_path: Path, ran: Path) -> None:
    torch.save({"state": Trap(ran)}, tmp_path / "trainer.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "trainer.pt", weights_only=True)
    assert not ran.exists()


def test_no_module_of_the_package_reads_pickles_or_trusts_remote_code() -> None:
    forbidden = re.compile(
        r"pickle\.loads?\(|yaml\.(unsafe_|full_)load\(|yaml\.load\((?!.*Loader=_Loader)|allow_pickle=True|weights_only=False|shelve|"
        r"trust_remote_code=True|(?<![.\w])(eval|exec)\("
    )
    for path in (ROOT / "mhc_bench").rglob("*.py"):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        found = [each for each in forbidden.finditer(code) if not _is_said(code, each.start())]
        assert not found, f"{path}: {found}"


def _is_said(code: str, place: int) -> bool:
    """Whether a place lies in a docstring or template."""
    return code[:place].count('"""') % 2 == 1


TAGGED = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{ran}']]"


def test_a_tag_in_a_configuration_is_refused(tmp_path: Path, ran: Path, capsys: Any) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: smoke\nnote: {TAGGED.format(ran=ran)}\n")
    assert cli.main(["run", str(tmp_path / "mine.yaml"), "--dry-run"]) == 2
    assert "not valid YAML" in capsys.readouterr().err and not ran.exists()


def test_a_tag_in_a_run_folder_or_a_record_is_refused(tmp_path: Path, ran: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    path = save_run_config(tiny_run(tmp_path), folder)
    path.write_text(path.read_text() + f"note: {TAGGED.format(ran=ran)}\n")
    assert cli.main(["eval", str(folder)]) in (1, 2)
    (tmp_path / "seed0.json").write_text(f"command: {TAGGED.format(ran=ran)}\n")
    with pytest.raises(RunError, match="not a valid record"):
        read_record(tmp_path / "seed0.json")
    assert not ran.exists() and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["trust_remote_code", "auto_map", "_name_or_path"])
def test_a_model_configuration_cannot_ask_for_code(name: str) -> None:
    from mhc_bench.suite.preflight import preflight

    with pytest.raises(UsageError, match="unknown backbone field"):
        preflight(run_configs(load_suite("smoke", [f"model.backbone.{name}=true", "variants=[mhc]"])))

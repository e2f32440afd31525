"""The command line: verbs, exit codes, one-line errors, speed-independent behaviour of the light verbs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mhc_bench import cli
from mhc_bench.suite import doctor

WORKING = [
    "run",
    "train",
    "eval",
    "leaderboard",
    "compare",
    "list",
    "describe",
    "plan",
    "export",
    "doctor",
    "bench",
    "prepare",
    "verify",
    "reproduce",
    "new-variant",
    "check",
]


def test_what_a_run_failed_with_is_listed_as_it_was_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s-1" / "hc[2]" / "seed0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "failure.txt").write_text("[/tmp] is full, shape [red]")
    assert cli.main(["list", "runs", "--runs", str(tmp_path)]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "hc[2]/seed0" in said and "[/tmp]isfull,shape[red]" in said


def test_findings_of_doctor_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [doctor.Finding("mhc_paper", "note", "needs mhc-bench[math] [/x]")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert cli.main(["doctor"]) == 0
    assert "needs mhc-bench[math] [/x]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "overrides", "rest"),
    [
        (
            ["run", "quick", "--correction", "threads=2", "seeds=[0]"],
            ["seeds=[0]"],
            {"correction": "threads=2"},
        ),
        (
            ["run", "seeds=[0]", "quick", "--corr", "a=b", "a.b=c d"],
            ["seeds=[0]", "a.b=c d"],
            {"suite": "quick"},
        ),
        (
            ["run", "quick", "--records", "x=1", "x=1", "--dry-run", "y=2"],
            ["x=1", "y=2"],
            {"records": Path("x=1")},
        ),
        (["reproduce", "r.json", "--by", "a=b"], [], {"by": "a=b"}),
        (["verify", "runs/a=b", "./c=d"], [], {"paths": [Path("runs/a=b"), Path("c=d")]}),
        (["check", "mhc", "--only", "sizes", "streams=2"], ["streams=2"], {"only": ["sizes"]}),
        (["run", "quick", "variants.mhc.options={streams: 2}", "seeds[0]=1"], None, {"suite": "quick"}),
        (["run", "quick", "variants.mhc-lite.options.streams=2"], None, {"suite": "quick"}),
    ],
)
def test_settings_are_told_from_values_of_options_and_from_paths(
    words: list[str], overrides: list[str] | None, rest: dict[str, object]
) -> None:
    options = cli._parse(words)
    assert options.overrides == (words[2:] if overrides is None else overrides)
    assert {name: getattr(options, name) for name in rest} == rest


def test_help_names_the_working_verbs_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    listed = re.findall(r"^    ([a-z-]+)", capsys.readouterr().out, flags=re.MULTILINE)
    assert set(listed) == set(WORKING)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rnu", "quick"], "did you mean 'run'"),
        (["quick"], "did you mean 'run quick'"),
        (["run", "quick", "--seeds", "3"], "settings are key=value"),
        (["run", "quik"], "did you mean 'quick'"),
        (["run", "smoke", "training.stpes=3"], "did you mean 'steps'"),
        (["run", "smoke", "variants=[bseline]"], "did you mean 'baseline'"),
        (["run", "smoke", "seeds=[]"], "at least one seed"),
        (["run", "smoke", "model.backbone.num_attention_heads=3"], "3"),
        (["run", "smoke", "variants.mhc.options.streams=0"], "streams"),
        (["run", "smoke", "variants.mhc.options.steams=2"], "did you mean 'streams'"),
        (["run", "smoke", "evaluation.tasks=[world_trivai]"], "did you mean 'world_trivia'"),
        (["run", "stdlib", "data.path=/does/not/exist"], "/does/not/exist"),
        (["train", "smoke"], "variant="),
        (["train", "stress", "variant=hc", "seed=0"], "needs arm="),
        (["eval", "nowhere"], "not a run folder"),
        (["leaderboard", "nowhere"], "nowhere"),
        (["list", "things"], "things"),
        (["describe", "quck"], "did you mean 'quick'"),
        (["doctor", "a=b"], "takes no overrides"),
        (["check", "gatd"], "unknown variant"),
        (["check", "mhcc"], "did you mean 'mhc'"),
        (["check", "mhc", "steams=2"], "did you mean 'streams'"),
        (["check", "mhc", "--backbone", "lama"], "did you mean 'llama'"),
        (["check", "mhc", "--only", "causalty"], "did you mean 'causality'"),
        (["check", "no_such_module:Thing"], "cannot import 'no_such_module'"),
        (["new-variant", "mhc"], "already"),
        (["new-variant", "Gated Skip"], "gated-skip"),
        (["prepare", "world"], "needs no preparation"),
        (["prepare", "fineweb"], "did you mean 'fineweb-edu'"),
        (["prepare", "fineweb-edu", "vocabluary=3"], "did you mean 'vocabulary'"),
        (["prepare", "fineweb-edu", "source=nowhere/at/all"], "does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2_and_writes_nothing(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(Exception, match="did you mean 'quick'"):
        cli.main(["run", "quik", "--debug"])


@pytest.mark.parametrize("what", ["suites", "variants", "models", "tasks", "runs"])
def test_list_prints_the_same_names_as_text_and_as_json(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", what, "--json", "--runs", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert cli.main(["list", what, "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert rows or what == "runs"
    for row in rows:
        assert next(iter(row.values())) in text


def test_the_module_and_the_package_run_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mhc_bench", "list", "suites"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "quick" in done.stdout

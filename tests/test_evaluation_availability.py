"""What an evaluation lacks is said before training, all at once, with the command that gets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark_rows
import datasets
import pytest

import mhc_bench
from mhc_bench import cli
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation import availability, check_runnable, gap, group_names
from mhc_bench.evaluation.availability import DataSet, data_revision, missing_data, needed_data
from mhc_bench.evaluation.fetch import fetch
from mhc_bench.suite import doctor

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EVERYTHING = {
    "SaylorTwift/bbh": 27,
    "EleutherAI/drop": 1,
    "openai/gsm8k": 1,
    "Rowan/hellaswag": 1,
    "EleutherAI/hendrycks_math": 7,
    "cais/mmlu": 57,
    "baber/piqa": 1,
    "mandarjoshi/trivia_qa": 1,
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of data sets."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, folder: str, part: str, rows: list[dict[str, object]]) -> None:
    """A data set as `datasets` leaves it in its cache after fetching it from the hub."""
    place = cache / folder / part / "0.0.0" / COMMIT
    built = datasets.Dataset.from_list(rows)
    built.save_to_disk(cache / "staged")
    place.mkdir(parents=True)
    name = folder.split("___")[-1]
    (cache / "staged" / "data-00000-of-00001.arrow").rename(place / f"{name}-test.arrow")
    info = {
        "builder_name": "parquet",
        "dataset_name": name,
        "config_name": part,
        "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
        "features": built.features.to_dict(),
        "splits": {"test": {"name": "test", "num_examples": len(rows), "dataset_name": name}},
    }
    (place / "dataset_info.json").write_text(json.dumps(info))


def test_everything_that_is_missing_is_said_in_one_line_with_the_command(cache: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_runnable(["mhc_paper"])
    line = str(caught.value)
    assert "\n" not in line
    for path, parts in EVERYTHING.items():
        assert (f"{path} ({parts} parts)" if parts > 1 else path) in line
    assert "python -m mhc_bench.evaluation.fetch mhc_paper" in line


def test_needed_data_is_listed_once_and_the_world_needs_none() -> None:
    found = needed_data(["mhc_paper", "mhc_world"])
    assert len(found) == len(set(found)) == sum(EVERYTHING.values())
    assert DataSet("openai/gsm8k", "main") in found
    assert needed_data(["mhc_world", "world_bbh"]) == []
    assert needed_data(["mhc_paper_drop"]) == [DataSet("EleutherAI/drop", None)]


def test_data_in_the_cache_is_available_and_another_part_of_it_is_not(cache: Path) -> None:
    rows = [benchmark_rows.ROWS["openai/gsm8k"]("test0", 0)]
    put(cache, "openai___gsm8k", "main", rows)
    assert missing_data(["mhc_paper_gsm8k_train"]) == []
    assert gap(["mhc_paper_gsm8k_train"]) is None
    put(cache, "EleutherAI___hendrycks_math", "algebra", rows)
    missing = missing_data(["mhc_paper_math_hendrycks"])
    assert len(missing) == 6 and DataSet("EleutherAI/hendrycks_math", "algebra") not in missing


def test_the_revision_is_the_commit_in_the_cache(cache: Path) -> None:
    put(cache, "openai___gsm8k", "main", [benchmark_rows.ROWS["openai/gsm8k"]("test0", 0)])
    with availability.quiet_datasets(), availability.offline():
        loaded = datasets.load_dataset("openai/gsm8k", "main")
    assert data_revision(loaded) == COMMIT


def test_the_revision_is_the_commit_in_the_checksums_and_else_unknown() -> None:
    rows = datasets.Dataset.from_list([{"a": 1}])
    assert data_revision({"test": rows}) is None
    assert data_revision([{"a": 1}]) is None
    rows.info.download_checksums = {f"hf://datasets/openai/gsm8k@{COMMIT}/main/test.parquet": {}}
    assert data_revision({"test": rows}) == COMMIT


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "version", lambda name: "4.9.3" if "antlr" in name else "1.0")
    monkeypatch.setattr(availability, "_loadable", lambda each, unreachable: True)
    assert gap(["mhc_paper_math"]) == (
        "packages antlr4-python3-runtime==4.11.* (get them with: pip install 'mhc-bench[math]')"
    )
    assert gap(["mhc_paper_math_hendrycks"]) is None


def test_two_groups_with_a_task_in_common_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'mhc_paper' and 'hc_paper' both hold 'hellaswag'"):
        check_runnable(["mhc_paper", "hc_paper"])
    with pytest.raises(UsageError, match=r"both hold 'world_piqa'"):
        check_runnable(["mhc_world", "world_piqa"])


def test_run_refuses_before_training_and_plan_does_not_mind(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cache)
    words = ["smoke", "evaluation.tasks=[hc_paper]"]
    assert cli.main(["plan", *words]) == 0
    assert cli.main(["run", *words, "--dry-run"]) == 0
    capsys.readouterr()
    assert cli.main(["run", *words]) == 2
    assert "allenai/winogrande" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


def test_doctor_tells_for_every_group_whether_it_runs_and_how_to_fetch_it(cache: Path) -> None:
    put(cache, "openai___gsm8k", "main", [benchmark_rows.ROWS["openai/gsm8k"]("test0", 0)])
    found = {finding.what: finding for finding in doctor._tasks()}
    assert set(found) == {"tasks", *group_names()}
    assert (found["mhc_world"].verdict, found["mhc_world"].detail) == ("ok", "runs offline")
    assert found["mhc_paper_gsm8k_train"].verdict == "ok"
    assert found["hc_paper"].verdict == "note"
    assert "fetch hc_paper" in found["hc_paper"].detail


def test_fetch_loads_what_is_needed_and_names_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def load(path: str, part: str | None) -> None:
        asked.append(path)
        if path == "allenai/sciq":
            raise ConnectionError("no answer\nfrom the hub")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(
        RunError, match=r"^1 of 7 data sets could not be fetched: allenai/sciq \(no answer\)$"
    ):
        fetch(["hc_paper"])
    assert len(asked) == 7
    assert "7/7 allenai/winogrande winogrande_xl" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean 'hc_paper'"):
        fetch(["hc_papr"])


def test_fetch_goes_online_although_evaluation_is_offline() -> None:
    """The libraries read the setting when they are imported, so a process of its own must tell."""
    program = (
        "import sys, mhc_bench.evaluation.fetch as f; sys.argv = ['fetch', 'hc_paper']\n"
        "f.fetch = lambda names: print(names, __import__('datasets').config.HF_HUB_OFFLINE)\n"
        "sys.exit(f.main())"
    )
    place = {"PYTHONPATH": str(Path(mhc_bench.__file__).parent.parent), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | place, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['hc_paper'] False"

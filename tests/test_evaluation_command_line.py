"""lm-eval's own command line on an exported run and the shipped tasks: item by item the same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluation_toy as toy
import pytest

import mhc_bench
from mhc_bench.config import save_run_config
from mhc_bench.data.world import FAMILIES
from mhc_bench.evaluation import evaluate, export_run
from mhc_bench.resources import tasks_dir

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def command_line(export: Path, folder: Path) -> None:
    """Run lm-eval in a process of its own that has never loaded this package's evaluation."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={export},trust_remote_code=True"]
    command += ["--include_path", str(tasks_dir()), "--tasks", "mhc_world"]
    command += ["--metadata", '{"world_seed": 3}', "--limit", "6", "--batch_size", "5"]
    command += ["--output_path", str(folder / "out.json"), "--log_samples"]
    places = {"HF_HOME": str(folder / "cache"), "PYTHONPATH": str(Path(mhc_bench.__file__).parent.parent)}
    done = subprocess.run(
        command,
        env=os.environ | OFFLINE | places,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.long
def test_lm_evals_own_command_line_gives_the_same_answers(tmp_path: Path) -> None:
    config = toy.run_config("mhc", world_seed=3, tasks=("mhc_world",))
    run_dir = toy.trained(config, tmp_path / "run")
    save_run_config(config, run_dir)
    (run_dir / "training.json").write_text(json.dumps(toy.TRAINING))
    summary = evaluate(config, run_dir)
    command_line(export_run(run_dir, tmp_path / "export", ""), tmp_path)
    (found,) = tmp_path.glob("out*.json")
    results = json.loads(found.read_text())["results"]
    said = set()
    for name in (f"world_{family}" for family in FAMILIES):
        assert results[name][summary.tasks[name].metric] == pytest.approx(summary.tasks[name].value)
        (theirs,) = tmp_path.glob(f"samples_{name}_*.jsonl")
        for ours, other in zip(lines(run_dir / "samples" / f"{name}.jsonl"), lines(theirs), strict=True):
            assert ours["doc"] == other["doc"]
            assert ours["prompt_hash"] == other["prompt_hash"]
            if "acc" in ours["metrics"]:
                scores = [float(reply[0][0]) for reply in other["resps"]]
                assert [reply[0][0] for reply in ours["resps"]] == pytest.approx(scores, abs=1e-3)
            else:
                assert ours["resps"] == other["resps"]
                said.add(str(ours["resps"]))
    assert len(said) > 10

"""A finished run as a transformers checkpoint with a model card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jinja2

from mhc_bench.config import RunConfig, load_run_config
from mhc_bench.errors import RunError, UsageError
from mhc_bench.evaluation.run import final_model
from mhc_bench.evaluation.summary import read_summary
from mhc_bench.model import load_model, save_model
from mhc_bench.model.quiet import quiet_transformers
from mhc_bench.provenance import versions

TRAINING_FILE = "training.json"


def export_run(run_dir: Path, out: Path) -> Path:
    """Write the final model of `run_dir` to the new folder `out`: weights, configuration, tokenizer, README.

    `lm_eval --model hf --model_args pretrained=OUT,trust_remote_code=True` and `AutoModelForCausalLM` read it
    where mhc-bench is installed.

    Raises:
        UsageError: `run_dir` is no run folder, or `out` is a file or a folder with something in it.
        RunError: training is not over, or a file of the run is damaged.
    """
    config = load_run_config(run_dir)
    source = final_model(run_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists: expected a new or an empty folder")
    card = model_card(config, run_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with quiet_transformers():
            save_model(*load_model(source), staged)
        (staged / "README.md").write_text(card, encoding="utf-8")
        staged.chmod(0o755)
        staged.replace(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return out


def model_card(config: RunConfig, run_dir: Path) -> str:
    """The README of an exported model: what it is, what it was trained on, what it scored."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mhc_bench.evaluation"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("model_card.md.j2").render(
        config=config, training=_training(run_dir), evaluation=read_summary(run_dir), versions=versions()
    )


def _training(run_dir: Path) -> dict[str, Any]:
    path = run_dir / TRAINING_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: expected the summary of a finished training ({error})") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object")
    return content

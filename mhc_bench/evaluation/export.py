"""A finished run as a transformers checkpoint."""

from __future__ import annotations

from pathlib import Path

from mhc_bench.config import load_run_config
from mhc_bench.evaluation.run import final_model, trained_model
from mhc_bench.files import atomic_folder
from mhc_bench.model import save_model
from mhc_bench.model.quiet import quiet_transformers


def export_run(run_dir: Path, out: Path, card: str, weights: str | None = None) -> Path:
    """Write the final model of `run_dir` to the new folder `out`: weights, configuration, tokenizer, README.

    `lm_eval --model hf --model_args pretrained=OUT,trust_remote_code=True` and `AutoModelForCausalLM` read it
    where mhc-bench is installed.

    Args:
        card: the README's text.
        weights: `weight_digest` of what the run was trained to, where that is known.

    Raises:
        UsageError: `run_dir` is no run folder, or `out` is a file or a folder with something in it.
        RunError: training is not over, or a file of the run is damaged, or its model another run's.
    """
    load_run_config(run_dir)
    source = final_model(run_dir)
    with atomic_folder(out) as staged:
        with quiet_transformers():
            save_model(*trained_model(source, weights), staged)
        (staged / "README.md").write_text(card, encoding="utf-8")
    return out

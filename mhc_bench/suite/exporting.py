"""`mhc-bench export`: a run as a model that others can load, or records as a dataset that they can read."""

from __future__ import annotations

from pathlib import Path

from mhc_bench.config import load_run_config
from mhc_bench.config.load import RUN_CONFIG_FILE
from mhc_bench.errors import UsageError
from mhc_bench.evidence import Record, read_record
from mhc_bench.evidence.store import record_paths
from mhc_bench.suite.state import RECORD_FILE, TRAINING_FILE, read_json


def export(source: Path, out: Path) -> None:
    """Write a run's model, or the table of the records below a folder, to the new folder `out`.

    Raises:
        UsageError: `source` is neither, or `out` is in use.
        RunError: the run is not trained, its model is not its own, or a record is damaged.
    """
    if (source / RUN_CONFIG_FILE).is_file():
        from mhc_bench.evaluation import export_run
        from mhc_bench.suite.card import model_card

        trained = read_json(source / TRAINING_FILE) or {}
        card = model_card(load_run_config(source), _record(source))
        export_run(source, out, card, trained.get("weight_digest"))
    elif source.is_dir() and record_paths(source):
        from mhc_bench.evidence.dataset import write_dataset

        write_dataset(source, out)
    else:
        raise UsageError(f"{source}: expected a run folder ({RUN_CONFIG_FILE}) or a folder with records")


def _record(run_dir: Path) -> Record | None:
    path = run_dir / RECORD_FILE
    return read_record(path) if path.is_file() else None

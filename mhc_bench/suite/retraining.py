"""A trained run whose final model is damaged, or another run's, trains again."""

from __future__ import annotations

from pathlib import Path

from mhc_bench.config import RunConfig
from mhc_bench.errors import RunError
from mhc_bench.suite.state import EVALUATION_FILE, RECORD_FILE, TRAINING_FILE, read_json


def put_back_if_damaged(run: RunConfig, folder: Path) -> None:
    """Put a run back to training that is trained, not yet evaluated or recorded, and lacks its final model.

    For the first rank; the caller holds the run's lock. Reads the whole model. Nothing rests on the model of
    a diverged run: that stays as it is.

    Raises:
        RunError: the run was put back, and there are other ranks, which may have seen that it was trained; or
            the model cannot be read although it is there.
    """
    trained = read_json(folder / TRAINING_FILE) or {}
    used = any((folder / name).exists() for name in (EVALUATION_FILE, RECORD_FILE))
    if used or trained.get("status") != "complete":
        return
    from mhc_bench.model.saving import FINAL, find_damage
    from mhc_bench.training.checkpoints import put_back
    from mhc_bench.training.checks import launched, world_size

    damage = find_damage(folder / FINAL, trained["weight_digest"])
    if not damage:
        return
    put_back(folder, trained["restarts"] + 1)
    if launched() and world_size(run) > 1:
        raise RunError(f"the final model was of no use ({damage}): removed; the same command trains again")
    print(f"the final model was of no use ({damage}): removed; training again", flush=True)

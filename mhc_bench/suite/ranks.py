"""One rank of a run that takes several, started by `launch_module`.

`python -m mhc_bench.suite.ranks RUN_DIR` completes the run; with `CONFIG_DIR OUT` behind it, evaluates it
into OUT as the configuration in CONFIG_DIR says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record


@record
def main() -> None:
    """Do this rank's part."""
    # imported here, where a failure reaches the launcher with its message
    import torch.distributed as dist

    from mhc_bench.errors import StoppedError
    from mhc_bench.stopping import ends_when_told, leave
    from mhc_bench.training.launch import end_with_parent

    end_with_parent()
    with ends_when_told():
        try:
            _do_part(*map(Path, sys.argv[1:]))
        except StoppedError as told:
            leave(told.exit_code)
    if dist.is_initialized():
        dist.destroy_process_group()


def _do_part(folder: Path, config: Path | None = None, out: Path | None = None) -> None:
    from mhc_bench.config import load_run_config
    from mhc_bench.suite.evaluating import evaluate_run
    from mhc_bench.suite.worker import complete_as_rank

    if config is None or out is None:
        complete_as_rank(load_run_config(folder), folder)
    else:
        evaluate_run(load_run_config(config), folder, out)


if __name__ == "__main__":
    main()

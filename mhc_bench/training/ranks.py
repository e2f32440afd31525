"""One rank of a run: `python -m mhc_bench.training.ranks RUN_DIR [--quiet]`, started by `launch_ranks`."""

from __future__ import annotations

import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record


@record
def main() -> None:
    """Train the run whose folder is the first argument."""
    # imported here, where a failure reaches the launcher with its message
    from mhc_bench.config import load_run_config
    from mhc_bench.errors import StoppedError
    from mhc_bench.stopping import ends_when_told, leave
    from mhc_bench.training.fitting import fit
    from mhc_bench.training.launch import end_with_parent

    end_with_parent()
    folder = Path(sys.argv[1])
    with ends_when_told():
        try:
            fit(load_run_config(folder), folder, quiet="--quiet" in sys.argv[2:])
        except StoppedError as told:
            leave(told.exit_code)


if __name__ == "__main__":
    main()

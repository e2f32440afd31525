"""One rank of an evaluation: `python -m mhc_bench.suite.evaluation_ranks CONFIG_DIR RUN_DIR OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record


@record
def main() -> None:
    """Evaluate the run of the second argument, as the first one's `config.yaml` says, into the third."""
    # imported here, where a failure reaches the launcher with its message
    import torch.distributed as dist

    from mhc_bench.config import load_run_config
    from mhc_bench.suite.evaluating import evaluate_run
    from mhc_bench.training.launch import end_with_parent

    end_with_parent()
    config, folder, out = map(Path, sys.argv[1:])
    evaluate_run(load_run_config(config), folder, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

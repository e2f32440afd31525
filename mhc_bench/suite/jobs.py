"""What each task of a SLURM job runs: one rank of its run, named as torchrun would name it."""

from __future__ import annotations

import os
from pathlib import Path


def work_as_rank(folder: str) -> None:
    """Complete the run in `folder` over all tasks of this job; ends the process where that did not work."""
    from mhc_bench.stopping import ends_when_told, leave
    from mhc_bench.suite.worker import work

    with ends_when_told():
        _name_rank()
        code = work(Path(folder))
        if code:
            leave(code)  # when one rank ends, srun ends the others: each keeps its own exit code


def _name_rank() -> None:
    """Tell torch and Lightning about the ranks, unless there is only one."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    job = JobEnvironment()
    if job.num_tasks == 1:
        return
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["TORCHELASTIC_RUN_ID"] = job.job_id
    os.environ["GROUP_RANK"] = str(job.node)

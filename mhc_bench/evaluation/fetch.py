"""Fetch the data sets of evaluation tasks: `python -m mhc_bench.evaluation.fetch mhc_paper`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mhc_bench.errors import MhcBenchError, RunError, UsageError
from mhc_bench.evaluation.availability import needed_data
from mhc_bench.evaluation.tasks import check_tasks


def fetch(names: Sequence[str]) -> None:
    """Download what `names` need and is not in the cache yet. Safe to repeat.

    Raises:
        UsageError: an unknown task.
        RunError: naming the data sets that could not be fetched; the others are there.
    """
    check_tasks(names)
    failed = []
    needed = needed_data(names)
    import datasets

    for number, each in enumerate(needed, start=1):
        name = f"{each.path} {each.part or ''}".rstrip()
        print(f"{number}/{len(needed)} {name}", flush=True)
        try:
            datasets.load_dataset(each.path, each.part)
        except (OSError, ValueError) as error:
            failed.append(f"{name} ({str(error).splitlines()[0][:200]})")
    if failed:
        raise RunError(f"{len(failed)} of {len(needed)} data sets could not be fetched: {'; '.join(failed)}")


def main() -> int:
    """The arguments are names of tasks or groups."""
    # evaluation is offline by default; only this is not, and the libraries are not loaded yet
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "0"
    try:
        if not sys.argv[1:]:
            raise UsageError("expected names of tasks or groups, such as mhc_paper")
        fetch(sys.argv[1:])
    except MhcBenchError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

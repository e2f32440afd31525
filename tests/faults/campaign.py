"""Random faults until the time is over: `python tests/faults/campaign.py --seed 0 --minutes 30`.

Each trial is a function of (seed, number), so `--only NUMBER` brings one back. `--every-write worker` (or
`runner`) draws nothing: such a process is killed at its first change of a file, at its second, and so on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import torch  # noqa: E402
from forked_suite import Ground, contents  # noqa: E402
from trials import KINDS, MOUNTING, NotSurvivedError, Trial, at_each_write, can_mount, survive  # noqa: E402

from mhc_bench import __version__, bench, evaluation, evidence, training  # noqa: E402
from mhc_bench.provenance import commit  # noqa: E402

IMPORTED_ONCE = (bench, evaluation, evidence, training)
"""What the children need, so that none of them imports it."""


def main() -> int:
    """Try, say how it went, and end with 1 where something was not survived."""
    options = arguments()
    warnings.simplefilter("ignore")
    os.environ.setdefault("MHC_BENCH_CACHE", tempfile.mkdtemp(prefix="faults-cache-"))
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    undisturbed = Ground(place / "undisturbed")
    assert undisturbed.run() == 0, undisturbed.output()
    expected = contents(undisturbed)
    print(f"mhc-bench {__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    print(f"commit {commit()[0][:10]}", flush=True)
    tried, survived, end = Counter[str](), Counter[str](), time.monotonic() + 60 * options.minutes
    for number, trial in at_each_write(options.every_write) if options.every_write else drawn(options):
        ground = Ground(place / str(number))
        tried[trial.kind] += 1
        try:
            survive(trial, ground, expected)
            survived[trial.kind] += 1
            print(f"{number}: {trial.kind} ({trial.detail}): survived", flush=True)
            shutil.rmtree(ground.root)
        except Exception as error:
            told = str(error) if isinstance(error, NotSurvivedError) else traceback.format_exc()
            place_of = f"NOT SURVIVED in {ground.root}"
            print(f"{number}: {trial.kind} ({trial.detail}): {place_of}: {told}", flush=True)
        if time.monotonic() > end:
            break
    for kind in tried:
        print(f"{kind:28} {survived[kind]:4} of {tried[kind]}")
    print(f"{'all':28} {survived.total():4} of {tried.total()}, seed {options.seed}")
    return int(survived != tried)


def drawn(options: argparse.Namespace) -> Iterator[tuple[int, Trial]]:
    """Each kind in turn, at random otherwise; without end but for `--only`."""
    kinds = [kind for kind in KINDS if can_mount() or kind not in MOUNTING]
    for number in [options.only] if options.only is not None else itertools.count():
        yield number, kinds[number % len(kinds)](random.Random(f"{options.seed} {number}"))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", type=int, metavar="NUMBER")
    parser.add_argument("--every-write", choices=["worker", "runner"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

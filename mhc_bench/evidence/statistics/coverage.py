"""How often the intervals are right with few seeds: simulated, and kept here for the pages to print.

`python -m mhc_bench.evidence.statistics.coverage` makes the table anew. Seed effects are Gaussian, or jump: a
family of tasks is learned suddenly, at a time that varies with the seed, so that a run has learned it or not.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.random import Generator

from mhc_bench.evidence.statistics.crossed import crossed
from mhc_bench.evidence.statistics.holm import holm
from mhc_bench.evidence.statistics.paired import Spread, t_interval, t_test
from mhc_bench.evidence.statistics.power import ALPHA
from mhc_bench.files import write_text

FILE = Path(__file__).with_name("coverage.json")
COMMAND = "python -m mhc_bench.evidence.statistics.coverage"
SEED = 20261124
SEEDS = (3, 5, 8)
TRIALS, CROSSED_TRIALS = 20_000, 4_000
"""Standard error of a share near 95 %: 0.0015 and 0.0034."""
NOMINAL = (0.93, 0.97)
"""A 95 % interval whose observed coverage lies here does what it says."""

LOSS_SD = 0.025
"""Nats per token: sd of paired differences of validation loss, as small runs of the world have it."""
JUMP, BLUR = 0.3, 0.03
"""Of a family's score: what learning it adds, and the sd of everything else in one run."""
ITEMS, ITEM_SD, REST_SD = 250, 0.2, 0.5
"""Items of a task, and the sd of paired differences between items and within them."""
TASKS = 8

Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Share:
    """What was observed in one case: shares of all trials; None where the case has no such question."""

    case: str
    n: int
    coverage: float | None
    """Of intervals that hold the truth."""
    better: float | None
    """Of false "better", where nothing is."""


def gaussian(random: Generator, shape: tuple[int, ...]) -> Values:
    """Paired differences of a loss around 0."""
    return random.normal(0.0, LOSS_SD, shape)


def jumps(random: Generator, shape: tuple[int, ...], learned: tuple[float, float]) -> Values:
    """Paired differences of a family's score around their mean; `learned`: the chance in either variant."""
    ours, theirs = (
        JUMP * (random.random(shape) < chance) + random.normal(0.0, BLUR, shape) for chance in learned
    )
    return np.asarray(ours - theirs - JUMP * (learned[0] - learned[1]))


def mean_of_jumps(random: Generator, shape: tuple[int, ...], learned: tuple[float, float]) -> Values:
    """The same for the mean over families that jump on their own."""
    return np.asarray(jumps(random, (TASKS, *shape), learned).mean(axis=0))


Draw = Callable[[Generator, tuple[int, ...]], Values]
EVEN, FIRST_LEADS = (0.5, 0.5), (0.75, 0.25)
BY_SEED: dict[str, tuple[Draw, bool]] = {
    "loss, Gaussian seed effects": (gaussian, True),
    "one task that jumps, equally often in both": (functools.partial(jumps, learned=EVEN), True),
    "one task that jumps, three times as often in one": (
        functools.partial(jumps, learned=FIRST_LEADS),
        False,
    ),
    f"mean of {TASKS} tasks that jump, equally often in both": (
        functools.partial(mean_of_jumps, learned=EVEN),
        True,
    ),
    f"mean of {TASKS} tasks that jump, three times as often in one": (
        functools.partial(mean_of_jumps, learned=FIRST_LEADS),
        False,
    ),
}
"""Case -> paired differences around their true mean, and whether that mean is 0."""
SAME_ITEMS, NEW_ITEMS = "one task, these items", "one task, new items"
ANY_TASK = f"any of {TASKS} tasks that jump alike, Holm"


def by_seed(random: Generator, n: int, draw: Draw, null: bool, case: str, trials: int) -> Share:
    """Coverage of the t interval by seed, and false "better" where the truth is 0."""
    sample = draw(random, (trials, n))
    covered = better = 0
    for mean, sd in zip(sample.mean(axis=1), sample.std(axis=1, ddof=1), strict=True):
        low, high = t_interval(Spread(n, float(mean), float(sd))) or (0.0, 0.0)
        covered += low <= 0 <= high
        better += low > 0
    return Share(case, n, covered / trials, better / trials if null else None)


def by_seed_and_item(random: Generator, n: int, trials: int) -> tuple[Share, Share]:
    """Coverage of both intervals of a task, with an item effect as large as makes a difference."""
    same = new = 0
    for _ in range(trials):
        items = random.normal(0.0, ITEM_SD, ITEMS)
        seeds = jumps(random, (n, 1), EVEN)
        found = crossed(seeds + items + random.normal(0.0, REST_SD, (n, ITEMS)))
        assert found is not None
        same += found.same_items[0] <= items.mean() <= found.same_items[1]
        new += found.new_items[0] <= 0 <= found.new_items[1]
    return Share(SAME_ITEMS, n, same / trials, None), Share(NEW_ITEMS, n, new / trials, None)


def any_task(random: Generator, n: int, trials: int) -> Share:
    """How often at least one of several tasks is called better after Holm's correction, and none is."""
    sample = jumps(random, (trials, TASKS, n), EVEN)
    wrong = 0
    for means, sds in zip(sample.mean(axis=2), sample.std(axis=2, ddof=1), strict=True):
        spreads = {
            str(k): Spread(n, float(m), float(s)) for k, (m, s) in enumerate(zip(means, sds, strict=True))
        }
        adjusted = holm({name: t_test(each) for name, each in spreads.items()})
        wrong += any(p <= ALPHA and (spreads[name].mean or 0) > 0 for name, p in adjusted.items())
    return Share(ANY_TASK, n, None, wrong / trials)


def simulate(trials: int = TRIALS, crossed_trials: int = CROSSED_TRIALS, seed: int = SEED) -> list[Share]:
    """All cases for all numbers of seeds."""
    shares = []
    for n in SEEDS:
        random = np.random.default_rng([seed, n])
        shares += [by_seed(random, n, draw, null, case, trials) for case, (draw, null) in BY_SEED.items()]
        shares += by_seed_and_item(random, n, crossed_trials)
        shares.append(any_task(random, n, crossed_trials))
    return shares


@functools.cache
def observed() -> dict[int, tuple[Share, ...]]:
    """The shares of the table beside this module: number of seeds -> cases."""
    shares = [Share(**each) for each in json.loads(FILE.read_text(encoding="utf-8"))["shares"]]
    return {n: tuple(each for each in shares if each.n == n) for n in SEEDS}


def main() -> None:
    """Simulate and write the table."""
    content = {
        "command": COMMAND,
        "date": datetime.date.today().isoformat(),
        "seed": SEED,
        "trials": {"by seed": TRIALS, "by seed and item, and over tasks": CROSSED_TRIALS},
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "shares": [asdict(share) for share in simulate()],
    }
    write_text(FILE, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""`mhc-bench bench ops`: every implementation of the operations, in turn, beside a copy of the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mhc_bench.bench.clock import Clock
from mhc_bench.bench.peers import PEERS
from mhc_bench.bench.problems import SHARED, VARIANTS, Data, Problem, Trial, compiled_trial, our_trial
from mhc_bench.bench.timing import Interval, interleave, median_interval
from mhc_bench.bench.traffic import DIRECTIONS, OPERATIONS, Pass, operation_traffic
from mhc_bench.errors import UsageError, choose
from mhc_bench.ops.choice import IMPLEMENTATIONS

REFERENCE, COMPILED = "reference", "torch.compile"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AGREEMENT = {"fp32": 2e-3, "bf16": 2e-2}
"""Largest difference to the reference, relative in the 2-norm, at which results count as the same: TF32
products and rounding to bf16 pass, another formula does not."""
WARMUP = 3


@dataclass
class OpsGrid:
    """What is measured; an empty list stands for what suits the device."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    tokens: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    """C."""
    streams: list[int] = field(default_factory=lambda: [4])
    """n."""
    dtypes: list[str] = field(default_factory=list)
    """Of the streams: `fp32`, `bf16`."""
    operations: list[str] = field(default_factory=lambda: list(OPERATIONS))
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    implementations: list[str] = field(default_factory=list)
    """Ours by name, `torch.compile` of the reference, and peers."""
    threads: int = 1
    """Of a CPU."""
    seconds: float = 0.0
    """At most about this long for one operation at one size, but three rounds; 0: what suits the device."""


@dataclass(frozen=True)
class Cell:
    """One implementation of one operation at one size, in one direction."""

    operation: str
    variant: str
    """`hc` or `mhc`; empty where the operation is the same for both."""
    tokens: int
    width: int
    streams: int
    dtype: str
    implementation: str
    direction: Pass
    units: int
    """Hidden states per token that the I/O model counts."""
    bytes: int
    """The same for all tokens, maps included."""
    difference: float | None
    """Of results and gradient to the reference's, relative; None where there was nothing to compare."""
    n: int = 0
    """Rounds."""
    seconds: Interval | None = None
    floor_seconds: float | None = None
    """Median of the copy that moves `bytes`."""
    copy_fraction: Interval | None = None
    """Time of that copy over this one's, in the same round: the achieved share of the copy's bandwidth."""
    ratios: dict[str, Interval] = field(default_factory=dict)
    """Time over each other implementation's, in the same round."""
    not_measured: str = ""
    """Why there are no times; empty where there are."""

    @property
    def bytes_per_second(self) -> float | None:
        """Achieved bandwidth by the I/O model."""
        return None if self.seconds is None else self.bytes / self.seconds.median


def resolved(grid: OpsGrid) -> OpsGrid:
    """`grid` with every empty list filled for its device.

    Raises:
        UsageError: an unknown name, a size below 1, or a GPU that is not there.
    """
    if grid.device == "gpu" and not torch.cuda.is_available():
        raise UsageError("device 'gpu': no CUDA device here; give device=cpu")
    gpu = grid.device == "gpu" or (grid.device == "auto" and torch.cuda.is_available())
    # on a CPU torch.compile takes minutes for the unrolled Sinkhorn, so it has to be asked for
    everything = [*IMPLEMENTATIONS, *([COMPILED] if gpu else []), *PEERS]
    full = OpsGrid(
        device="gpu" if gpu else "cpu",
        tokens=grid.tokens or ([4096, 16384] if gpu else [2048]),
        widths=grid.widths or ([1280, 1920, 2560, 4096, 7168] if gpu else [64, 256]),
        streams=grid.streams,
        dtypes=grid.dtypes or (["bf16"] if gpu else ["fp32"]),
        operations=grid.operations,
        variants=grid.variants,
        implementations=grid.implementations or everything,
        threads=grid.threads,
        seconds=grid.seconds or (60.0 if gpu else 15.0),
    )
    _check(full)
    return full


def _check(grid: OpsGrid) -> None:
    for kind, values, known in (
        ("dtype", grid.dtypes, DTYPES),
        ("operation", grid.operations, OPERATIONS),
        ("variant", grid.variants, VARIANTS),
        ("implementation", grid.implementations, (*IMPLEMENTATIONS, COMPILED, *PEERS)),
    ):
        for value in values:
            choose(kind, value, known)
    sizes = {"tokens": grid.tokens, "widths": grid.widths, "streams": grid.streams, "threads": [grid.threads]}
    for name, numbers in sizes.items():
        if not numbers or min(numbers) < 1:
            raise UsageError(f"{name} is {numbers}: expected whole numbers from 1")
    if not grid.seconds > 0:
        raise UsageError(f"seconds is {grid.seconds}: expected a positive number, or 0 for the default")


def problems(grid: OpsGrid) -> Iterator[Problem]:
    """Every operation at every size of a resolved grid."""
    device = (
        torch.device("cuda", torch.cuda.current_device()) if grid.device == "gpu" else torch.device("cpu")
    )
    for dtype, n, width, tokens in itertools.product(grid.dtypes, grid.streams, grid.widths, grid.tokens):
        for operation in grid.operations:
            for variant in ("",) if operation in SHARED else grid.variants:
                yield Problem(operation, variant, tokens, width, n, DTYPES[dtype], device)


def measure_problem(problem: Problem, names: Sequence[str], rounds: int, seconds: float) -> list[Cell]:
    """Time every implementation in `names` that has this operation."""
    try:
        data = Data(problem)
        expected = _results(our_trial(REFERENCE, problem, data), problem, data)
    except torch.OutOfMemoryError:
        return _unmeasured(problem, names, "the reference to compare with is out of memory")
    trials: dict[str, Trial] = {}
    reasons: dict[str, str] = {}
    differences: dict[str, float] = {}
    for name in names:
        if name in PEERS and not PEERS[name].offers(problem):
            continue
        made = _made(name, problem, data, expected)
        if isinstance(made, str):
            reasons[name] = made
            continue
        trials[name], differences[name] = made
        if differences[name] > AGREEMENT[_dtype(problem)]:
            reasons[name] = f"computes something else: differs by {differences[name]:.1e}"
            del trials[name]
    del expected
    times = _times(problem, data, trials, rounds, seconds)
    return [
        _cell(problem, name, direction, differences.get(name), times, reasons.get(name, ""))
        for name in names
        if name in trials or name in reasons
        for direction in DIRECTIONS
    ]


def _unmeasured(problem: Problem, names: Sequence[str], reason: str) -> list[Cell]:
    able = [name for name in names if name not in PEERS or PEERS[name].offers(problem)]
    return [_cell(problem, name, way, None, {}, reason) for name in able for way in DIRECTIONS]


def _dtype(problem: Problem) -> str:
    return next(name for name, dtype in DTYPES.items() if dtype is problem.dtype)


def _made(name: str, problem: Problem, data: Data, expected: list[Tensor]) -> tuple[Trial, float] | str:
    """A trial and how far its results are from `expected`; or why it cannot be measured."""
    if name in PEERS and (obstacle := PEERS[name].obstacle(problem)):
        return obstacle
    try:
        trial = _trial(name, problem, data)
        return trial, _difference(_results(trial, problem, data), expected)
    except UsageError as error:
        return str(error)
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:
        # what others' code raises is theirs to choose; an error of our own must be seen
        if name not in PEERS:
            raise
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _trial(name: str, problem: Problem, data: Data) -> Trial:
    if name in PEERS:
        return PEERS[name].trial(problem, data)
    return compiled_trial(problem, data) if name == COMPILED else our_trial(name, problem, data)


def _arriving(trial: Trial, data: Data, results: dict[str, Tensor]) -> list[Tensor]:
    """The gradients of a trial's results, in its layout."""
    return [
        trial.native(name, data.upstream(name, trial.common(name, value.detach())))
        for name, value in results.items()
    ]


def _results(trial: Trial, problem: Problem, data: Data) -> list[Tensor]:
    """Results and the compared gradient, in the common layout."""
    found = trial.run(trial.operands)
    witness: Tensor = trial.operands[problem.witness]
    gradient = torch.autograd.grad(list(found.values()), witness, _arriving(trial, data, found))[0]
    named = [*sorted(found.items()), (problem.witness, gradient)]
    return [trial.common(name, value).detach() for name, value in named]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest of the relative differences in the 2-norm; infinite where shapes differ or NaN appears."""
    largest = 0.0
    for ours, other in zip(found, expected, strict=True):
        if ours.shape != other.shape:
            return float("inf")
        error = float((ours.double() - other.double()).norm() / other.double().norm())
        largest = max(largest, error if np.isfinite(error) else float("inf"))
    return largest


Times = dict[tuple[str, Pass], npt.NDArray[np.float64]]


def _times(problem: Problem, data: Data, trials: dict[str, Trial], rounds: int, seconds: float) -> Times:
    """Seconds of each round by implementation (empty name: the copy) and direction."""
    clock = Clock(problem.device, cold=True)
    measurements: dict[tuple[str, Pass], Callable[[], float]] = {}
    for direction in DIRECTIONS:
        measurements["", direction] = _copy(problem, direction, clock)
    for name, trial in trials.items():
        measurements[name, "forward"] = partial(clock, partial(trial.run, trial.operands))
        measurements[name, "backward"] = partial(_backward, trial, data, clock)
    found = interleave(list(measurements.values()), rounds, WARMUP, seconds)
    return {key: found[:, place] for place, key in enumerate(measurements)}


def _copy(problem: Problem, direction: Pass, clock: Clock) -> Callable[[], float]:
    """A copy that reads and writes together what the I/O model counts."""
    half = torch.zeros(_bytes(problem, direction) // 2, dtype=torch.uint8, device=problem.device)
    target = torch.empty_like(half)
    return partial(clock, partial(target.copy_, half))


def _backward(trial: Trial, data: Data, clock: Clock) -> float:
    """The gradients of all operands; the forward pass before it is not timed."""
    results = trial.run(trial.operands)
    arriving, outputs, leaves = _arriving(trial, data, results), list(results.values()), trial.leaves()
    # contiguous as they arrive in training, whatever the layout
    arriving = [each.contiguous() for each in arriving]
    return clock(lambda: torch.autograd.grad(outputs, leaves, arriving, allow_unused=True))


def _bytes(problem: Problem, direction: Pass) -> int:
    traffic = operation_traffic(problem.operation, problem.streams, direction)
    return traffic.bytes(problem.tokens, problem.width, problem.dtype.itemsize)


def _cell(
    problem: Problem, name: str, direction: Pass, difference: float | None, times: Times, reason: str
) -> Cell:
    blank = Cell(
        operation=problem.operation,
        variant=problem.variant,
        tokens=problem.tokens,
        width=problem.width,
        streams=problem.streams,
        dtype=_dtype(problem),
        implementation=name,
        direction=direction,
        units=operation_traffic(problem.operation, problem.streams, direction).units,
        bytes=_bytes(problem, direction),
        difference=None if difference is None or not np.isfinite(difference) else difference,
        not_measured=reason,
    )
    return blank if reason else _with_times(blank, times)


def _with_times(cell: Cell, times: Times) -> Cell:
    own, copy = times[cell.implementation, cell.direction], times["", cell.direction]
    others = {name: found for (name, way), found in times.items() if name and way == cell.direction}
    measured = {
        "n": len(own),
        "seconds": median_interval(own),
        "floor_seconds": float(np.median(copy)),
        "copy_fraction": median_interval(copy / own),
        "ratios": {
            name: median_interval(own / found)
            for name, found in others.items()
            if name != cell.implementation
        },
    }
    return Cell(**{**vars(cell), **measured})

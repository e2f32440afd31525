"""The operations' bench: who is measured, against what, and what it says of those that cannot be."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mhc_bench.bench import ops, peers
from mhc_bench.bench.figures import draw_ops, write_figure
from mhc_bench.bench.ops import Cell, OpsGrid, measure_problem, problems, resolved
from mhc_bench.bench.ops_report import OpsReport, run_bench_ops
from mhc_bench.bench.peers import PEERS
from mhc_bench.bench.problems import SHARED, Data, Problem, our_trial
from mhc_bench.bench.traffic import DIRECTIONS, OPERATIONS, operation_traffic
from mhc_bench.cli import main
from mhc_bench.errors import UsageError
from mhc_bench.ops.choice import IMPLEMENTATIONS

CPU = torch.device("cpu")


def tiny(**changes: object) -> OpsGrid:
    return OpsGrid(**({"device": "cpu", "tokens": [8], "widths": [16], "seconds": 1.0} | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report() -> OpsReport:
    return run_bench_ops(tiny(), rounds=3, command="bench ops")


def cells_of(report: OpsReport, implementation: str) -> list[Cell]:
    return [cell for cell in report.cells if cell.implementation == implementation]


def test_every_operation_is_measured_forward_and_backward_for_every_variant(report: OpsReport) -> None:
    expected = {
        (operation, variant, direction)
        for operation in OPERATIONS
        for variant in ([""] if operation in SHARED else ["hc", "mhc"])
        for direction in DIRECTIONS
    }
    for name in ("reference", "eager"):
        found = cells_of(report, name)
        assert {(cell.operation, cell.variant, cell.direction) for cell in found} == expected
        assert all(cell.seconds is not None and cell.n == 3 for cell in found)


def test_bytes_and_bandwidth_follow_from_the_io_model(report: OpsReport) -> None:
    for cell in cells_of(report, "eager"):
        traffic = operation_traffic(cell.operation, 4, cell.direction)
        assert (cell.units, cell.bytes) == (traffic.units, traffic.bytes(8, 16, 4))
        assert cell.seconds is not None and cell.bytes_per_second == cell.bytes / cell.seconds.median


def test_peers_that_cannot_run_here_are_named_with_the_reason(report: OpsReport) -> None:
    for name in ("tile-kernels", "transformer-engine"):
        found = cells_of(report, name)
        assert found and all(cell.seconds is None for cell in found)
        assert {cell.not_measured for cell in found} <= {f"{name} is not installed", "needs a GPU"}
    assert "not measured: tile-kernels" in report.to_text()


@pytest.mark.parametrize("name", ["transformers", "hyper-connections", "liger-style"])
def test_peers_of_any_device_compute_what_the_reference_does(report: OpsReport, name: str) -> None:
    pytest.importorskip(PEERS[name].module)
    found = cells_of(report, name)
    assert found and all(cell.seconds is not None for cell in found)
    assert all(cell.difference is not None and cell.difference < 1e-4 for cell in found)


@pytest.mark.parametrize(("dtype", "streams"), [(torch.bfloat16, 4), (torch.float32, 3)])
@pytest.mark.parametrize("operation", ["aggregate", "read", "write", "site"])
def test_ligers_style_in_torch_is_measured_in_bf16_and_at_any_n(
    operation: str, dtype: torch.dtype, streams: int
) -> None:
    variant = "" if operation in SHARED else "mhc"
    problem = Problem(operation, variant, 8, 16, streams, dtype, CPU)
    found = measure_problem(problem, ["liger-style"], 3, 1.0)
    assert len(found) == 2 and all(cell.seconds is not None for cell in found), found
    assert all(cell.difference is not None and cell.difference < 1e-4 for cell in found)


def test_what_computes_something_else_is_said_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """H_res of transformers' module is [in, out]; taken as [out, in] its maps are other maps."""
    true = PEERS["transformers"]

    def transposed(problem: Problem, data: Data) -> object:
        return dataclasses.replace(true.trial(problem, data), common=lambda name, tensor: tensor)

    monkeypatch.setitem(PEERS, "transformers", dataclasses.replace(true, trial=transposed))  # type: ignore[arg-type]
    problem = Problem("read", "mhc", 8, 16, 4, torch.float32, CPU)
    found = measure_problem(problem, ["reference", "transformers"], 3, 1.0)
    wrong = [cell for cell in found if cell.implementation == "transformers"]
    assert len(wrong) == 2 and all(cell.seconds is None for cell in wrong)
    assert all("computes something else" in cell.not_measured for cell in wrong)


def test_a_peer_that_fails_is_named_and_an_error_of_our_own_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> object:
        raise ValueError("no such kernel\nand more")

    problem = Problem("site", "mhc", 8, 16, 4, torch.float32, CPU)
    monkeypatch.setitem(PEERS, "transformers", dataclasses.replace(PEERS["transformers"], trial=broken))  # type: ignore[arg-type]
    found = measure_problem(problem, ["reference", "transformers"], 3, 1.0)
    assert found[-1].not_measured == "ValueError: no such kernel"
    monkeypatch.setattr(ops, "_trial", broken)
    with pytest.raises(ValueError, match="no such kernel"):
        measure_problem(problem, ["eager"], 3, 1.0)


def test_a_problem_too_large_for_the_reference_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*given: object) -> object:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(ops, "our_trial", full)
    problem = Problem("write", "", 8, 16, 4, torch.float32, CPU)
    found = measure_problem(problem, ["eager", "liger", "hyper-connections"], 3, 1.0)
    assert [cell.implementation for cell in found] == 2 * ["eager"] + 2 * ["liger"]
    assert all("out of memory" in cell.not_measured for cell in found)


def test_obstacles_are_said_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: object())
    here = Problem("site", "mhc", 8, 16, 4, torch.float32, CPU)
    gpu = dataclasses.replace(here, device=torch.device("cuda", 0))
    assert PEERS["liger"].obstacle(here) == "needs a GPU"
    assert PEERS["tile-kernels"].obstacle(gpu) == "has no float32"
    assert PEERS["liger"].obstacle(dataclasses.replace(gpu, streams=3)) == "has n = 2, 4, 8 alone"
    assert PEERS["liger"].obstacle(gpu) == ""
    assert not PEERS["liger"].offers(dataclasses.replace(gpu, variant="hc"))
    assert not PEERS["hyper-connections"].offers(here)


def test_ratios_and_shares_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is twice as slow in some rounds changes neither."""
    load = np.array([1.0, 2.0, 1.0, 2.0])
    seconds = {"": 1.0, "reference": 8.0, "eager": 4.0}
    times = {(name, way): each * load for name, each in seconds.items() for way in DIRECTIONS}
    monkeypatch.setattr(ops, "_times", lambda *given: times)
    problem = Problem("aggregate", "", 8, 16, 4, torch.float32, CPU)
    cell = measure_problem(problem, ["reference", "eager"], 4, 1.0)[2]
    assert (cell.implementation, cell.direction) == ("eager", "forward")
    assert cell.copy_fraction is not None and cell.copy_fraction.low == cell.copy_fraction.high == 0.25
    assert cell.ratios["reference"].low == cell.ratios["reference"].high == 0.5
    assert cell.seconds is not None and cell.seconds.median == 6.0 and cell.floor_seconds == 1.5


def test_forward_keeps_no_operand_and_backward_reaches_every_parameter() -> None:
    problem = Problem("site", "mhc", 8, 16, 4, torch.float32, CPU)
    trial = our_trial("eager", problem, Data(problem))
    assert len(trial.leaves()) == 1 + 9
    results = trial.run(trial.operands)
    gradients = torch.autograd.grad(results["written"].sum(), trial.leaves())
    assert all(each.abs().max() > 0 for each in gradients)


def test_an_empty_grid_is_filled_for_a_cpu_and_given_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    grid = resolved(OpsGrid(widths=[32]))
    assert (grid.device, grid.tokens, grid.widths, grid.dtypes) == ("cpu", [2048], [32], ["fp32"])
    assert "torch.compile" not in grid.implementations
    with pytest.raises(UsageError, match="no CUDA device here"):
        resolved(OpsGrid(device="gpu"))


def test_a_gpus_grid_holds_the_papers_widths_and_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    grid = resolved(OpsGrid())
    assert grid.widths == [1280, 1920, 2560, 4096, 7168] and grid.dtypes == ["bf16"]
    assert "torch.compile" in grid.implementations
    assert len(list(problems(grid))) == 2 * 5 * (len(SHARED) + 2 * (len(OPERATIONS) - len(SHARED)))


def test_the_plan_and_each_operation_are_told_as_they_come() -> None:
    told: list[str] = []
    grid = tiny(operations=["aggregate", "read"], variants=["mhc"], implementations=["eager"], seconds=0.1)
    run_bench_ops(grid, 3, progress=told.append)
    assert told == [
        "2 operations and sizes on the cpu, about 0 min at most",
        "[1/2] aggregate: 8 tokens, C 16, n 4",
        "[2/2] mhc read: 8 tokens, C 16, n 4",
    ]


def test_the_default_grid_of_a_cpu_takes_five_minutes_at_most() -> None:
    grid = resolved(OpsGrid(device="cpu"))
    assert len(list(problems(grid))) * grid.seconds <= 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operations": ["writ"]}, "unknown operation 'writ'.*did you mean 'write'"),
        ({"implementations": ["eagre"]}, "unknown implementation 'eagre'"),
        ({"dtypes": ["fp16"]}, "unknown dtype 'fp16'"),
        ({"variants": ["baseline"]}, "unknown variant 'baseline'"),
        ({"tokens": [0]}, r"tokens is \[0\]: expected whole numbers from 1"),
        ({"streams": []}, r"streams is \[\]"),
        ({"seconds": -1.0}, "seconds is -1.0: expected a positive number"),
    ],
)
def test_what_is_not_there_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolved(tiny(**changes))


def test_the_command_prints_writes_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], report: OpsReport
) -> None:
    out, figure = tmp_path / "new" / "ops.json", tmp_path / "ops.png"
    grid = ["device=cpu", "tokens=[8]", "widths=[16,32]", "operations=[aggregate]"]
    grid += ["implementations=[reference,eager]"]
    command = ["bench", "ops", *grid, "--steps", "3", "--out", str(out), "--figure", str(figure)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "aggregate: 8 tokens, C 32, n 4, fp32; 5/9 units of C" in text and "x reference" in text
    content = json.loads(out.read_text())
    assert content["schema"] == "mhc-bench/ops/1" and len(content["cells"]) == 2 * 2 * 2
    assert set(content) == {"schema", "grid", "rounds", "cells", "origin"}
    assert set(content["cells"][0]) == {each.name for each in dataclasses.fields(Cell)} | {"bytes_per_second"}
    assert set(content["origin"]) >= {"command", "date", "commit", "versions", "machine", "gpu"}
    assert content["origin"]["command"].startswith("mhc-bench bench ops device=cpu")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert max(len(line) for line in report.to_text().splitlines()) <= 120
    write_figure(lambda: draw_ops(report), tmp_path / "ops.svg")
    assert "site (mhc) backward" in (tmp_path / "ops.svg").read_text()


def test_a_figure_has_a_colour_for_every_implementation(report: OpsReport) -> None:
    measured = next(cell for cell in report.cells if not cell.not_measured)
    names = [*IMPLEMENTATIONS, "torch.compile", *PEERS]
    cells = [dataclasses.replace(measured, implementation=name) for name in names]
    lines = draw_ops(dataclasses.replace(report, cells=cells)).legends[0].get_lines()
    assert len({str(line.get_color()) for line in lines}) == len(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ops", "quick"], "bench ops takes no suite: found 'quick'"),
        (["ops", "width=[1]"], "did you mean 'widths'"),
        (["ops", "--figure", "x.bmp"], "expected a name that ends in one of .png, .svg, .pdf"),
        (["ops", "--steps", "0"], "--steps 0: expected at least 1"),
        (["step", "smoke", "--out", "."], ". is a folder"),
    ],
)
def test_a_wrong_command_is_one_line_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_differences_are_relative_and_not_a_number_never_passes() -> None:
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert ops._difference([other], [one]) == pytest.approx(0.1)
    assert math.isinf(ops._difference([torch.tensor([math.nan, 1.0])], [one]))
    assert math.isinf(ops._difference([torch.ones(3)], [one]))

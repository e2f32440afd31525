"""Two nodes, shown by two agents of torchrun on one machine: one run, one record, one process's losses."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import KILLED, fork, wait
from test_fsdp_parity import FP32_TOLERANCE
from torch.distributed.run import main as torchrun

from mhc_bench.config import RunConfig, load_suite, run_configs, run_folder
from mhc_bench.evidence import read_record
from mhc_bench.training import fit, read_summary

pytestmark = [pytest.mark.ranks, pytest.mark.long]
TINY = [
    "data.validation_tokens=256",
    "training.steps=20",
    "training.validate_every=10",
    "training.probe_every=20",
    "evaluation.tasks=[]",
    "logging.checkpoint_every=5",
    "logging.loggers=[]",
]
NODES = ["hardware=cpu-fsdp", "hardware.devices=1", "hardware.nodes=2"]


def agent(root: Path, port: int) -> Callable[[], object]:
    """torchrun on one of the two nodes, with the run of variant mhc, seed 0."""
    words = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"]
    words += ["--rdzv-id=test", "--local-addr=127.0.0.1", "--monitor-interval=0.1"]
    train = ["-m", "mhc_bench", "train", "smoke", "variant=mhc", "seed=0", *TINY, *NODES, "--runs", str(root)]
    return lambda: torchrun([*words, *train])


def two_agents(root: Path) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [fork(agent(root, port), root.parent / f"node{node}") for node in range(2)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MHC_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "runs"


def the_run() -> RunConfig:
    (run,) = run_configs(load_suite("smoke", ["variants=[mhc]", *TINY]))
    return run


def finished_as_in_one_process(root: Path, restarts: int) -> None:
    """One summary and one record of both nodes, with the losses of a run in one process."""
    folder = run_folder(root, the_run())
    nodes, one = read_summary(folder), fit(the_run(), root.parent / "one")
    assert nodes is not None
    assert (nodes.status, nodes.world_size, nodes.restarts) == ("complete", 2, restarts)
    assert [path.name for path in root.glob("*/mhc/seed0/record.json")] == ["record.json"]
    record = read_record(folder / "record.json")
    assert record.digests is not None and record.digests.weights == nodes.weight_digest
    assert not list(root.rglob("*.tmp"))
    assert nodes.shared_weight_digest == one.shared_weight_digest
    assert nodes.token_stream_digest == one.token_stream_digest
    for ours, theirs in zip(nodes.validation, one.validation, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=FP32_TOLERANCE)


def test_a_run_over_two_nodes_ends_with_one_record_and_the_losses_of_one_process(root: Path) -> None:
    assert [wait(child) for child in two_agents(root)] == [0, 0]
    finished_as_in_one_process(root, restarts=0)


@pytest.mark.cluster
def test_when_one_node_dies_the_other_ends_with_an_error_and_the_run_resumes(
    root: Path, request: pytest.FixtureRequest
) -> None:
    if "cluster" not in request.config.option.markexpr:
        pytest.skip("starts six processes: run by tox -e slurm, or with -m cluster")
    folder = run_folder(root, the_run())
    first, second = two_agents(root)
    end = time.monotonic() + 240
    while not list((folder / "checkpoints").glob("step-*")):
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.02)
    os.kill(second, signal.SIGKILL)
    assert wait(second) == KILLED
    assert wait(first) == 1
    assert not (folder / "training.json").exists()
    assert [wait(child) for child in two_agents(root)] == [0, 0]
    finished_as_in_one_process(root, restarts=1)

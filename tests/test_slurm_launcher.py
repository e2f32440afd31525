"""`launcher=slurm` without a SLURM, whose commands have stand-ins: what is submitted, and what is said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import in_child
from rich.console import Console

from mhc_bench import cli
from mhc_bench.config import RunConfig, SlurmConfig, load_suite, run_configs, run_folder
from mhc_bench.errors import RunError, StoppedError, UsageError
from mhc_bench.suite import jobs, slurm, waiting
from mhc_bench.suite.report import Reporter

SUBMIT = """
n=$(ls "$FAKE"/job-* 2> /dev/null | wc -l)
if [ -f "$FAKE/refusal" ]; then echo "sbatch: error: $(cat "$FAKE/refusal")" >&2; exit 1; fi
cp "$1" "$FAKE/job-$((n + 1))"
echo "Submitted batch job $((n + 1))"
"""
STAND_INS = {
    "sbatch": SUBMIT,
    "squeue": 'cat "$FAKE/queue"',
    "sinfo": "echo main; echo debug",
    "scontrol": 'echo "$@" >> "$FAKE/asked"',
    "srun": "exit 1",
}
SMOKE = ["smoke", "variants=[baseline,hc]", "evaluation.tasks=[]", "launcher=slurm"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for SLURM's commands first on the path, and what they were told."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, body in STAND_INS.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    (folder / "queue").touch()
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def run(*overrides: str) -> RunConfig:
    return run_configs(load_suite("smoke", ["variants=[mhc]", *overrides]))[0]


def submitted(cluster: Path) -> list[str]:
    return [path.read_text() for path in sorted(cluster.glob("job-*"))]


def flags(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_a_job_has_the_nodes_tasks_and_limits_of_its_run_and_launcher(cluster: Path, root: Path) -> None:
    wide = ["hardware.accelerator=gpu", "hardware.devices=8", "hardware.nodes=2", "hardware.sharding=fsdp"]
    each = run(*wide, "hardware.threads=4", "hardware.workers=2", "training.batch_tokens=1024")
    launcher = SlurmConfig(
        time="2d", grace=600, partition="main", account="lab", memory="200G", setup=["module load cuda"]
    )
    launcher.options["reservation"] = "night"
    assert slurm.submit_once(each, root / "run", launcher) == ("1", True)
    (script,) = submitted(cluster)
    asked = flags(script)
    assert asked["nodes"] == "2" and asked["ntasks-per-node"] == "8" and asked["gpus-per-node"] == "8"
    assert asked["cpus-per-task"] == "6" and asked["mem"] == "200G" and asked["time"] == str(2 * 24 * 60)
    assert asked["signal"] == "USR2@600" and "requeue" in asked and asked["reservation"] == "night"
    assert asked["partition"] == "main" and asked["account"] == "lab"
    assert not {"qos", "constraint", "wckey"} & set(asked)
    assert script.index("module load cuda") < script.index("srun")
    (ranks,) = [line for line in script.splitlines() if line.startswith("srun")]
    for flag in ("--cpus-per-task=6", "--kill-on-bad-exit=1", "--open-mode=append"):
        assert flag in ranks
    assert (root / "run" / "config.yaml").exists()


def test_a_run_is_not_submitted_while_its_job_is_in_the_queue(cluster: Path, root: Path) -> None:
    assert slurm.submit_once(run(), root, SlurmConfig()) == ("1", True)
    (cluster / "queue").write_text("1 PENDING\n")
    assert slurm.submit_once(run(), root, SlurmConfig()) == ("1", False)
    (cluster / "queue").write_text("1 CANCELLED\n77 RUNNING\n")
    assert slurm.submit_once(run(), root, SlurmConfig()) == ("2", True)
    assert len(submitted(cluster)) == 2


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(75, 0, True), (75, 99, True), (75, 100, False), (1, 0, False)]
)
def test_the_job_is_queued_again_where_it_was_told_to_stop_and_keeps_its_exit_code(
    cluster: Path, code: int, restarts: int, requeued: bool
) -> None:
    script = "\n".join([f"(exit {code})", *slurm.requeue_commands(100)])
    environment = {**os.environ, "SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": str(restarts)}
    assert subprocess.run(["bash", "-c", script], env=environment).returncode == code
    asked = cluster / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 12\n" if requeued else "")


@pytest.mark.parametrize("tasks", [1, 16])
def test_the_tasks_of_a_job_are_named_as_torchrun_names_ranks(tasks: int) -> None:
    told = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": str(tasks), "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1"}
    told |= {"SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_JOB_NODELIST": "gpu[07-08]"}
    names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")

    def named() -> list[str | None]:
        os.environ.update(told, SUBMITIT_EXECUTOR="slurm")
        jobs._name_rank()
        return [os.environ.get(name) for name in (*names, "TORCHELASTIC_RUN_ID")]

    code, found = in_child(named)
    assert code == 0
    assert found == (["11", "3", "1", "16", "8", "gpu07", "5"] if tasks == 16 else [None] * 7)


class Queue:
    """Answers of squeue, one look after the other; the last one stays."""

    def __init__(self, *looks: dict[str, str] | Exception) -> None:
        self.looks = list(looks)

    def __call__(self) -> dict[str, str]:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return look


Waits = Callable[[Queue], dict[str, str]]


@pytest.fixture
def waits(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Waits for the job 1 of one run while squeue gives the answers of a `Queue`."""

    def wait(queue: Queue) -> dict[str, str]:
        monkeypatch.setattr(waiting, "ask_jobs", queue)
        monkeypatch.setattr(waiting, "submit_once", lambda *_: ("1", True))
        with Reporter(Console(quiet=True), 1, 0) as reporter:
            ends = waiting.run_as_jobs([run()], root, SlurmConfig(poll=0.001), reporter)
        return {name: state.standing for name, state in ends.items()}

    yield wait


def leave(root: Path, name: str, content: str) -> None:
    folder = run_folder(root, run())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def test_a_job_with_a_record_is_done_whatever_the_queue_says(root: Path, waits: Waits) -> None:
    leave(root, "record.json", '{"status": "complete"}')
    assert waits(Queue({"1": "COMPLETING"})) == {}


@pytest.mark.parametrize(
    ("last", "standing"),
    [
        ({}, "interrupted"),
        ({"1": "CANCELLED"}, "interrupted"),
        ({"1": "TIMEOUT"}, "interrupted"),
        ({"1": "OUT_OF_MEMORY"}, "failed"),
        ({"1": "COMPLETED"}, "failed"),
    ],
)
def test_a_job_that_is_over_without_a_record_was_stopped_or_broke(
    waits: Waits, last: dict[str, str], standing: str
) -> None:
    assert waits(Queue({"1": "PENDING"}, {"1": "RUNNING"}, {"1": "COMPLETING"}, last)) == {
        "mhc seed 0": standing
    }


def test_a_failed_run_says_why(root: Path, waits: Waits) -> None:
    leave(root, "failure.txt", "no such thing")
    assert waits(Queue({"1": "RUNNING"}, {})) == {"mhc seed 0": "failed"}


def test_a_record_that_comes_later_than_the_end_of_its_job_counts(root: Path, waits: Waits) -> None:
    class Late(Queue):
        def __call__(self) -> dict[str, str]:
            if len(self.looks) == 1:
                leave(root, "record.json", '{"status": "complete"}')
            return super().__call__()

    assert waits(Late({"1": "RUNNING"}, {}, {})) == {}


def test_a_queue_that_does_not_answer_for_a_while_loses_no_job(root: Path, waits: Waits) -> None:
    silence = [RunError("squeue: busy")] * (waiting.LOOKS_WITHOUT_ANSWER - 1)
    assert waits(Queue(*silence, {"1": "RUNNING"}, *silence, {}, {})) == {"mhc seed 0": "interrupted"}
    with pytest.raises(RunError, match="busy"):
        waits(Queue(RunError("squeue: busy")))


def test_ctrl_c_says_in_one_line_that_the_jobs_go_on(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting.time, "sleep", interrupt)
    with pytest.raises(StoppedError, match=r"the jobs go on.*scancel 1$") as caught:
        waits(Queue({"1": "RUNNING"}))
    assert "\n" not in str(caught.value)


def test_without_waiting_the_command_submits_and_ends_and_is_safe_to_repeat(
    cluster: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", *SMOKE, "launcher.wait=false", "--runs", str(root)]
    assert cli.main(words) == 0
    assert "baseline seed 0: job 1 submitted" in capsys.readouterr().out
    (cluster / "queue").write_text("1 RUNNING\n2 PENDING\n")
    assert cli.main(words) == 0
    assert "hc seed 0: job 2 is in the queue already" in capsys.readouterr().out
    assert len(submitted(cluster)) == 2

    assert cli.main(["run", *SMOKE, "variants=[hc,mhc]", "--dry-run", "--runs", str(root)]) == 0
    out = capsys.readouterr().out
    assert "hc seed 0: partial; job 2 is pending" in out
    assert "mhc seed 0: missing; a job of 1 x 1 tasks would be submitted" in out
    assert len(submitted(cluster)) == 2


def test_a_job_that_slurm_refuses_gets_its_own_words_in_one_line(
    cluster: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cluster / "refusal").write_text("Batch job submission failed: Invalid account\n")
    assert cli.main(["run", *SMOKE, "--runs", str(root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("SLURM refused the job: Batch job submission failed: Invalid account")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["launcher.partition=mian"], "did you mean 'main'"),
        (["launcher.time=24:00:00"], "launcher.time is 86400: expected a number and a unit"),
        (["launcher.grace=86400"], "launcher.grace"),
        (["launcher.requeues=-1"], "launcher.requeues"),
        (["launcher.poll=0"], "launcher.poll"),
        (["launcher.patition=main"], "did you mean 'partition'"),
        (["launcher=slurmm"], "did you mean 'slurm'"),
        (["launcher=local", "launcher.partition=main"], "unknown key 'launcher.partition'"),
        (["launcher=local", "hardware=cpu-fsdp", "hardware.nodes=2"], "expected launcher=slurm, or torchrun"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    cluster: Path, root: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], expected: str
) -> None:
    assert cli.main(["run", *SMOKE, *overrides, "--runs", str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not root.exists() and not submitted(cluster)


def test_a_machine_without_slurm_is_told_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match=r"no sbatch, srun, squeue, scontrol, sinfo.*launcher=local"):
        slurm.check_slurm(SlurmConfig())


def test_a_single_run_is_not_submitted(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "smoke", "variant=hc", "seed=0", "launcher=slurm"]
    assert cli.main(words) == 2
    assert "launcher=slurm is for mhc-bench run" in capsys.readouterr().err


def test_the_launcher_changes_no_id_and_a_named_part_takes_changes_in_any_order() -> None:
    for words in (["launcher=slurm", "launcher.time=2d"], ["launcher.time=2d", "launcher=slurm"]):
        suite = load_suite("smoke", words)
        assert isinstance(suite.launcher, SlurmConfig) and suite.launcher.time == "2d"
        assert run_configs(suite) == run_configs(load_suite("smoke"))

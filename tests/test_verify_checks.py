"""Every check refuses what it is there for: valid records changed in that respect, digests made right."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tampering import FIXTURES, Content, Records, each, echo, put, scale

from mhc_bench.evidence.items import items_path
from mhc_bench.evidence.reproduction import Difference, Reproduction, reproduction_json
from mhc_bench.evidence.verify import Tools, UnavailableError, explained, verify
from mhc_bench.provenance import file_digest

OTHER = "0123456789abcdef" * 4
TASK = "world_piqa"


@dataclass(frozen=True)
class Case:
    """A tampering, and the one check that must see it."""

    check: str
    what: str
    tamper: Callable[[Records], object]
    version: int = 2


def of(run: str, *changes: Callable[[Content], object]) -> Callable[[Records], None]:
    return lambda records: records.change(run, each(*changes))


def items_of(run: str, *changes: Callable[[Content], object]) -> Callable[[Records], None]:
    return lambda records: records.change_items(run, each(*changes))


def everywhere(*changes: Callable[[Content], object]) -> Callable[[Records], None]:
    def tamper(records: Records) -> None:
        for path in records.folder.rglob("seed?.json"):
            records.change(f"{path.parent.name}/{path.stem}", each(*changes))

    return tamper


def rename(run: str, target: str) -> Callable[[Records], None]:
    def move(records: Records) -> None:
        old, new = records.path(run), records.path(target)
        new.parent.mkdir(parents=True, exist_ok=True)
        items_path(old).rename(items_path(new))
        old.rename(new)

    return move


def borrowed(part: str, key: str, lender: str, *runs: str) -> Callable[[Records], None]:
    """One value of another record, put into some."""

    def tamper(records: Records) -> None:
        value = records.read(lender)[part][key]
        for run in runs:
            records.change(run, put(f"{part}.{key}", value))

    return tamper


def colliding(tamper: Callable[[Records], object]) -> Callable[[Records], None]:
    """A change of a configuration whose id stays, as a forger with a collision would make it."""

    def tampered(records: Records) -> None:
        records.tools = replace(records.tools, identify=echo)
        tamper(records)

    return tampered


def renamed_folder(records: Records) -> None:
    records.folder.rename(records.folder.with_name("smoke-0123456789"))


def deleted(*runs: str) -> Callable[[Records], None]:
    def tamper(records: Records) -> None:
        for run in runs:
            items_path(records.path(run)).unlink()
            records.path(run).unlink()

    return tamper


def again_elsewhere(records: Records) -> None:
    shutil.copytree(records.folder, records.root / "again" / records.folder.name)


def repacked_items(records: Records) -> None:
    path = items_path(records.path("hc/seed1"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=0))


def lower_loss(factor: float) -> Callable[[Content], None]:
    """A lower last validation loss, with what follows from it."""

    def change(content: Content) -> None:
        last = content["training"]["validation"][-1]
        last["loss"] *= factor
        last["bits_per_byte"] *= factor
        last["perplexity"] = math.exp(last["loss"])

    return change


def fast_steps(content: Content) -> None:
    content["training"]["step_seconds"] = {"p10": 1e-9, "p50": 1e-9, "p90": 1e-9}
    content["training"]["tokens_per_second"] = content["configuration"]["training"]["batch_tokens"] / 1e-9


def low_start(content: Content) -> None:
    content["training"]["initial_loss"] *= 0.5


def miscounted(records: Records) -> None:
    parameters = records.read("hc/seed0")["training"]["parameters"]
    records.tools = replace(records.tools, count=lambda configuration: {"total": parameters["total"]})


def reproduction_of(digest: str | None = None, *names: str, **changes: Any) -> Callable[[Records], None]:
    """Reproductions beside a record: of that record unless told otherwise, with some fields changed."""

    def tamper(records: Records) -> None:
        told = Reproduction(
            schema_version=1,
            record=digest or file_digest(records.path("hc/seed1")),
            verdict="identical bits",
            version="0.1.0",
            environment=(),
            differences=(),
            interval=None,
            repetition=OTHER,
        )
        for name in names or ("seed1.reproduction-1",):
            text = reproduction_json(told.model_copy(update=changes))
            records.path(f"hc/{name}").write_text(text, encoding="utf-8")

    return tamper


LOSS_DIFFERS = Difference(what="validation loss at step 220", recorded="1.2", here="1.3")


def judged(verdict: str, loss: float | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "validation_loss": loss,
        "interval": interval,
        "differences": (LOSS_DIFFERS,),
    }


def corrected(digest: str) -> Callable[[Records], None]:
    def tamper(records: Records) -> None:
        records.change("hc/seed1", put("supersedes", digest))
        rename("hc/seed1", "hc/seed1-2")(records)

    return tamper


def repeated(*changes: Callable[[Content], object]) -> Callable[[Records], None]:
    """An A/A run of the baseline's seed 1 beside the others, as `variants=[...,baseline-aa]` gives it."""
    moved = each(
        put("identity.variant", "baseline-aa"),
        put("identity.perturbation", 1e-6),
        put("configuration.variant_name", "baseline-aa"),
        put("configuration.variant.perturbation", 1e-6),
        put("digests.start", "a" * 64),
        put("digests.weights", "b" * 64),
        put("started.variants", ["baseline", "baseline-aa"]),
        put("started.seeds", [1]),
    )

    def tamper(records: Records) -> None:
        once, again = records.path("baseline/seed1"), records.path("baseline-aa/seed1")
        again.parent.mkdir()
        shutil.copyfile(once, again)
        shutil.copyfile(items_path(once), items_path(again))
        records.change("baseline-aa/seed1", each(moved, *changes))

    return tamper


def indented(records: Records) -> None:
    records.path("hc/seed1").write_text(json.dumps(records.read("hc/seed1"), indent=2))


T = "evaluation.tasks"
PART, MMLU = f"{T}.{TASK}.subtasks.use", f"{T}.world_mmlu"
PROBE = "mechanism.probes.composite_forward_gain"
POINT = {"learning_rate": 0.004, "weight_decay": 0.1}


def over_depth(dotted: str, value: object) -> Callable[[Content], None]:
    """A change: gains and matrices over depth that agree with the probes, and then not in one respect."""

    def change(content: Content) -> None:
        probes = content["mechanism"]["probes"]
        forward, backward = (probes[f"composite_{way}_gain"]["final"] for way in ("forward", "backward"))
        gains = {"forward_gain": [1.0, 1.0], "backward_gain": [1.25, 0.75]}
        ends = {"composite_forward_gain": [1.0, forward], "composite_backward_gain": [backward, 0.75]}
        mixing = [[[0.5, 0.5], [0.75, 0.25]], [[0.5, 0.0], [0.0, 0.5]]]
        half = min(forward, backward) / 2
        product = [[half, half / 2], [0.0, -half]]
        depth = {"step": 220, **gains, **ends, "mixing": mixing, "product": product}
        content["mechanism"]["depth"] = depth
        put(dotted, value)(depth)

    return change


CASES = [
    Case("file", "a symbolic link", lambda records: (records.root / "link.txt").symlink_to("nowhere")),
    Case("json", "a key twice", lambda records: twice(records)),
    Case("schema", "an unknown field", of("hc/seed1", put("training.surprise", 1))),
    Case("schema", "a field of a later version", of("hc/seed0", put("supersedes", None)), version=1),
    Case("item file", "no gzip file", lambda records: items_path(records.path("hc/seed1")).write_bytes(b"x")),
    Case("item file", "outcomes of no record", lambda records: orphan(records)),
    Case("canonical", "other blanks", indented),
    Case("text", "markup", of("hc/seed1", put("note", "see <script>alert(1)</script>"))),
    Case("text", "a formula", of("hc/seed1", put("provenance.python", "=HYPERLINK(1)"))),
    Case("text", "a terminal command", of("hc/seed1", put("command", "a\x1b[2J"))),
    Case("text", "markup as a key", of("hc/seed1", put("provenance.packages.<img src=x>", "1"))),
    Case("file name", "another seed", rename("hc/seed1", "hc/seed7")),
    Case("file name", "another variant", rename("hc/seed1", "other/seed1")),
    Case("file name", "another protocol", renamed_folder),
    Case("supersedes", "a record that is not there", corrected(OTHER)),
    Case("supersedes", "a gap in the editions", lambda records: editions(records, 3)),
    Case("supersedes", "a result without a reason", lambda records: editions(records, 2, correction=None)),
    Case("supersedes", "a result replaced by none", lambda records: editions(records, 2, change=broken)),
    Case("supersedes", "a correction of nothing", of("hc/seed1", put("correction", "because"))),
    Case("schema", "a failed run with a training", of("hc/seed1", put("status", "failed"))),
    Case(
        "schema", "a failed run that does not say why", of("hc/seed1", lambda content: broken(content, None))
    ),
    Case("schema", "a partial run with an evaluation", of("hc/seed1", put("status", "partial"))),
    Case("schema", "a complete run that failed", of("hc/seed1", put("failure", "no memory"))),
    Case("outcome", "a run that was not evaluated", lambda records: unevaluated(records)),
    Case("seeds", "another run of the same folder", of("hc/seed1", put("started.others", ["hc/seed5"]))),
    Case("identity", "other options", everywhere(put("identity.options", {"streams": 2}))),
    Case("identity", "another arm", of("hc/seed1", put("identity.arm", "mild"))),
    Case(
        "perturbation",
        "the baseline itself with its start moved",
        of(
            "baseline/seed1",
            put("identity.perturbation", 1e-6),
            put("configuration.variant.perturbation", 1e-6),
            put("digests.start", OTHER),
        ),
    ),
    Case("perturbation", "a moved start that is not said", of("hc/seed1", put("digests.start", OTHER))),
    Case("identity", "another perturbation", repeated(put("identity.perturbation", 1e-5))),
    Case("shared weights", "an A/A run from elsewhere", repeated(put("digests.shared_weights", OTHER))),
    Case(
        "duplicates",
        "an A/A run that is the baseline's",
        lambda records: repeated(
            put("digests.weights", records.read("baseline/seed1")["digests"]["weights"])
        )(records),
    ),
    Case("protocol id", "another rate", everywhere(put("configuration.optimizer.learning_rate", 0.1))),
    Case("protocol id", "a field of no schema", of("hc/seed1", put("configuration.optimizer.surprise", 1))),
    Case("protocol id", "other hardware", of("hc/seed1", put("configuration.hardware.workers", 3))),
    Case(
        "only the residual",
        "another rate under the same id",
        colliding(of("hc/seed1", put("configuration.optimizer.learning_rate", 0.1))),
    ),
    Case(
        "only the residual",
        "options that differ between the seeds of a variant",
        of(
            "hc/seed1",
            put("configuration.variant.options", {"streams": 2}),
            put("identity.options", {"streams": 2}),
        ),
    ),
    Case("settings", "more threads", of("hc/seed1", put("provenance.hardware.threads", 2))),
    Case("settings", "more processes", of("hc/seed1", put("provenance.hardware.processes", 2))),
    Case("settings", "another precision", of("hc/seed1", put("numerics.precision", "bf16"))),
    Case("settings", "another dtype", of("hc/seed1", put("evaluation.dtype", "bf16"))),
    Case("settings", "other batches", of("hc/seed1", put("evaluation.batch_size", 3))),
    Case("shared weights", "another start", of("hc/seed1", put("digests.shared_weights", OTHER))),
    Case(
        "shared weights",
        "the start of another seed",
        borrowed("digests", "shared_weights", "hc/seed0", "baseline/seed1", "hc/seed1", "mhc/seed1"),
    ),
    Case("token stream", "other tokens", of("hc/seed1", put("digests.token_stream", OTHER))),
    Case(
        "token stream",
        "the tokens of another seed",
        borrowed("digests", "token_stream", "hc/seed0", "baseline/seed1", "hc/seed1", "mhc/seed1"),
    ),
    Case("data", "another source", of("hc/seed1", put("data.fingerprint", OTHER))),
    Case("requests", "other questions", of("hc/seed1", put(f"{T}.{TASK}.request_hash", OTHER))),
    Case("requests", "another chance level", of("hc/seed1", put(f"{T}.{TASK}.chance", 0.1))),
    Case("seeds", "a run that is missing", deleted("hc/seed1")),
    Case("seeds", "a seed that is missing", deleted("baseline/seed1", "hc/seed1", "mhc/seed1")),
    Case("seeds", "a run that was not started", of("hc/seed1", put("started.seeds", [0]))),
    Case("duplicates", "the same records twice", again_elsewhere),
    Case("duplicates", "the result of another run", borrowed("digests", "weights", "hc/seed0", "hc/seed1")),
    Case("training summary", "more tokens", of("hc/seed1", scale("training.tokens", 2))),
    Case("training summary", "a run that stopped early", of("hc/seed1", put("training.diverged_step", 220))),
    Case("training summary", "a higher speed", of("hc/seed1", scale("training.tokens_per_second", 1.01))),
    Case(
        "training summary", "quantiles out of order", of("hc/seed1", scale("training.step_seconds.p10", 99))
    ),
    Case(
        "training summary",
        "less time than its steps took",
        of("hc/seed1", put("training.seconds", 0.1), put("cost.train_seconds", 0.1)),
    ),
    Case("loss curve", "a lower final loss", of("hc/seed1", scale("training.final_loss", 0.9))),
    Case("loss curve", "a higher last loss", of("hc/seed1", scale("training.last_loss", 3))),
    Case("loss curve", "another tail", of("hc/seed1", put("training.final_steps", 5))),
    Case("loss curve", "a higher start", of("hc/seed1", scale("training.initial_loss", 3))),
    Case("loss curve", "a lower end", of("hc/seed1", scale("mechanism.curves.loss.values.-1", 0.5))),
    Case("loss curve", "an early end", of("hc/seed1", put("mechanism.curves.loss.steps.-1", 219))),
    Case("loss curve", "a gap", of("hc/seed1", put("mechanism.curves.loss.steps.5", 11))),
    Case("loss curve", "a lower final loss", of("hc/seed0", scale("training.final_loss", 0.99)), version=1),
    Case("validation", "another perplexity", of("hc/seed1", scale("training.validation.0.perplexity", 1.01))),
    Case("validation", "other tokens", of("hc/seed1", scale("training.validation.0.tokens", 2))),
    Case("bits per byte", "fewer bits", of("hc/seed1", scale("training.validation.0.bits_per_byte", 0.99))),
    Case("mechanism", "a lower peak", of("hc/seed1", put(f"{PROBE}.max", 0.5))),
    Case(
        "mechanism",
        "another end",
        of("hc/seed1", scale(f"{PROBE}.final", 0.9)),
    ),
    Case("mechanism", "a lower gradient", of("hc/seed1", scale("training.gradient_norm.max", 0.5))),
    Case("depth", "another end", of("hc/seed1", over_depth("composite_forward_gain.-1", 7.0))),
    Case("depth", "a later step", of("hc/seed1", over_depth("step", 10_000))),
    Case("depth", "a larger matrix", of("hc/seed1", over_depth("mixing.0", [[0.9, 0.9], [0.9, -0.5]]))),
    Case("depth", "a larger product", of("hc/seed1", over_depth("product", [[9.0, 0.0], [0.0, 9.0]]))),
    Case("cost", "less time", of("hc/seed1", scale("cost.train_seconds", 0.5))),
    Case("cost", "another ratio", of("baseline/seed1", put("cost.step_time.ratio_to_baseline", 0.9))),
    Case("item digest", "the same items in another file", repacked_items),
    Case("item digest", "no items", lambda records: items_path(records.path("hc/seed1")).unlink()),
    Case("scores", "one more right item", of("hc/seed1", lambda content: one_more_right(content))),
    Case("scores", "a smaller error", of("hc/seed1", scale(f"{T}.{TASK}.stderr", 0.5))),
    Case("scores", "a likelier answer", of("hc/seed1", scale(f"{T}.{TASK}.gold_loglikelihood", 0.5))),
    Case("scores", "a likelier kind", of("hc/seed1", scale(f"{PART}.gold_loglikelihood", 0.5))),
    Case("scores", "a wrong item made right", items_of("hc/seed1", lambda items: one_made_right(items))),
    Case("scores", "an item twice", items_of("hc/seed1", put(f"tasks.{TASK}.documents", [0] * 8))),
    Case("score shape", "half an item right", of("hc/seed0", put(f"{MMLU}.value", 0.7031)), version=1),
    Case("score shape", "more than all right", of("hc/seed0", put(f"{MMLU}.value", 1.2)), version=1),
    Case("score shape", "parts of fewer items", of("hc/seed0", put(f"{PART}.n", 9)), version=1),
    Case("score shape", "a better part", of("hc/seed0", put(f"{PART}.value", 0.2)), version=1),
    Case("parameters", "a larger model", miscounted),
    Case("timing", "steps of a nanosecond", of("hc/seed1", fast_steps)),
    Case("timing", "a step of a nanosecond", of("hc/seed1", scale("cost.step_time.quantiles.p10", 1e-9))),
    Case("too good", "half the baseline's loss", of("hc/seed1", lower_loss(0.5))),
    Case("too good", "a trained start", of("hc/seed0", low_start), version=1),
    Case("too good", "a leap", of("hc/seed0", put(f"{T}.world_trivia.value", 0.972)), version=1),
    Case("reproduction", "of another record", reproduction_of(OTHER)),
    Case("reproduction", "beside another record", reproduction_of(None, "seed0.reproduction-1")),
    Case("reproduction", "markup", reproduction_of(by="<b>a friend</b>")),
    Case("reproduction", "the same bits and differences", reproduction_of(differences=(LOSS_DIFFERS,))),
    Case("reproduction", "other bits and no difference", reproduction_of(verdict="no interval")),
    Case(
        "reproduction", "inside, by a loss outside", reproduction_of(**judged("inside interval", 2.0, (0, 1)))
    ),
    Case("reproduction", "inside no interval", reproduction_of(**judged("inside interval", 2.0, None))),
    Case(
        "reproduction",
        "outside, by a loss inside",
        reproduction_of(**judged("outside interval", 0.5, (0, 1))),
    ),
    Case("reproduction", "no interval, by one", reproduction_of(**judged("no interval", 0.5, (0, 1)))),
    Case(
        "reproduction",
        "one repetition twice",
        reproduction_of(None, "seed1.reproduction-1", "seed1.reproduction-2"),
    ),
    Case("choice", "values of the fixed track", of("hc/seed0", put("configuration.tuned", POINT))),
    Case("trials", "trials without records", lambda records: colliding(everywhere(as_tuned))(records)),
]


def as_tuned(content: Content) -> None:
    """A record of the tuned track that is sound but for its trial's record, which nobody has."""
    settings: Any = content["configuration"]
    rate, decay = (settings["optimizer"][name] for name in POINT)
    settings["search"] = {
        "learning_rates": [rate],
        "weight_decays": [],
        "seeds": [7],
        "rule": "lowest_mean_loss",
    }
    settings["tuned"] = dict(zip(POINT, (rate, decay), strict=True))
    trial = {**settings["tuned"], "seed": 7, "loss": 1.0, "record": OTHER}
    content["tuning"] = {"runs": 1, "suite": f"{settings['suite']}-search", "trials": [trial]}


LACKING = {"json": {"seeds"}, "schema": {"seeds"}, "item file": {"item digest"}}
"""A file that is refused is lacking afterwards: what else must see that."""


def broken(content: Content, failure: str | None = "no memory") -> None:
    """A run that failed while training."""
    nothing = dict.fromkeys(("digests", "training", "evaluation", "mechanism", "numerics"))
    content |= {**nothing, "status": "failed", "failure": failure, "data": {}, "side_files": {}}
    content["cost"] |= {"train_seconds": None, "evaluate_seconds": None}


def editions(
    records: Records,
    *numbers: int,
    correction: str | None = "a wrong note",
    change: Callable[[Content], object] = lambda content: None,
) -> None:
    """Further editions of a record, all of which replace the first."""
    first = records.path("hc/seed1")
    for number in numbers:
        content = records.read("hc/seed1")
        content |= {"supersedes": file_digest(first), "correction": correction, "note": str(number)}
        change(content)
        name = f"hc/seed1-{number}"
        records.write(name, content)
        if content["evaluation"]:
            shutil.copyfile(items_path(first), items_path(records.path(name)))


def unevaluated(records: Records) -> None:
    items_path(records.path("hc/seed1")).unlink()
    records.change(
        "hc/seed1", each(put("evaluation", None), put("side_files", {}), put("cost.evaluate_seconds", None))
    )


def twice(records: Records) -> None:
    path = records.path("hc/seed1")
    path.write_text(path.read_text().replace('"note":', '"note": "", "note":'))


def orphan(records: Records) -> None:
    path = items_path(records.path("hc/seed1"))
    shutil.copyfile(path, path.with_name("seed9.items.json.gz"))


def one_more_right(content: Content) -> None:
    task: Any = content["evaluation"]["tasks"][TASK]
    task["value"] += 1 / task["n"]
    part = task["subtasks"]["use"]
    part["value"] += 1 / part["n"]


def one_made_right(items: Content) -> None:
    values = items["tasks"][TASK]["values"]
    values[values.index(0.0)] = 1.0


@pytest.fixture
def records(tmp_path: Path, request: pytest.FixtureRequest) -> Records:
    return Records(tmp_path, getattr(request, "param", 2))


@pytest.mark.parametrize("version", [1, 2])
def test_the_untouched_records_have_no_problem(version: int, tmp_path: Path) -> None:
    report = Records(tmp_path, version).verify()
    assert report.problems == ()
    assert report.records == (2 if version == 1 else 6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}: {case.what} (v{case.version})")
def test_the_check_that_is_meant_refuses_the_tampering_and_no_other(case: Case, tmp_path: Path) -> None:
    records = Records(tmp_path, case.version)
    case.tamper(records)
    report = records.verify()
    assert {problem.check for problem in report.problems} - LACKING.get(case.check, set()) == {case.check}
    assert all(problem.file and problem.found and problem.expected for problem in report.problems)


def test_gains_and_matrices_over_depth_that_agree_are_no_problem(records: Records) -> None:
    records.change("hc/seed1", over_depth("step", 220))
    assert records.verify().problems == ()


def test_an_a_a_run_beside_the_others_stands_every_check(records: Records) -> None:
    repeated()(records)
    assert not records.verify().problems


def test_every_check_has_a_case() -> None:
    only_notes = {"environment"}
    assert {case.check for case in CASES} == explained().keys() - only_notes


def test_the_documentation_says_of_every_check_what_it_proves() -> None:
    page = (FIXTURES.parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    for name, proves in explained().items():
        assert f"| {name} | {proves} |" in page


def test_all_problems_are_told_at_once(records: Records) -> None:
    records.change("hc/seed1", put("training.tokens", 1))
    records.change("mhc/seed0", put("digests.token_stream", OTHER))
    records.path("mhc/seed1").write_text("{")
    report = records.verify()
    checks = {problem.check for problem in report.problems}
    assert checks == {"training summary", "token stream", "json", "seeds"}
    assert len({problem.file for problem in report.problems}) >= 3


def test_a_correction_replaces_what_it_supersedes(records: Records) -> None:
    old = records.path("hc/seed1")
    digest = file_digest(old)
    shutil.copyfile(old, records.path("hc/seed1-2"))
    shutil.copyfile(items_path(old), items_path(records.path("hc/seed1-2")))
    records.change("hc/seed1-2", each(put("supersedes", digest), put("correction", "a wrong note")))
    assert records.verify().problems == ()


def test_a_record_has_one_successor(records: Records) -> None:
    editions(records, 2, 3)
    found = {problem.found for problem in records.verify().problems if problem.check == "supersedes"}
    assert found == {f"supersedes what {records.path('hc/seed1-2')} supersedes", "supersedes seed1.json"}


def test_a_failed_run_counts_as_reported_and_may_be_replaced_without_a_reason(
    records: Records, tmp_path: Path
) -> None:
    result = records.read("hc/seed1")
    items = items_path(records.path("hc/seed1")).rename(tmp_path / "kept")
    records.change("hc/seed1", broken)
    assert records.verify().problems == ()
    items.rename(items_path(records.path("hc/seed1-2")))
    records.write("hc/seed1-2", result | {"supersedes": file_digest(records.path("hc/seed1"))})
    assert records.verify().problems == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"by": "a reader"},
        judged("inside interval", 0.5, (0, 1)),
        judged("outside interval", 1.5, (0, 1)),
        judged("no interval", 1.5, None),
        {
            **judged("outside interval", None, (0, 1)),
            "differences": (Difference(what="status", recorded="complete", here="diverged"),),
        },
    ],
    ids=lambda changes: changes.get("verdict", "identical bits"),
)
def test_a_reproduction_of_the_record_beside_it_is_told(records: Records, changes: dict[str, Any]) -> None:
    reproduction_of(**changes)(records)
    report = records.verify()
    assert report.problems == ()
    (said,) = [note.text for note in report.notes if note.check == "reproduction"]
    assert said.endswith(changes.get("verdict", "identical bits"))


def test_what_was_not_checked_is_said(tmp_path: Path) -> None:
    report = verify([FIXTURES / "version-1"], Tools(count=_unavailable))
    said = {note.check: note.text for note in report.notes}
    assert said["parameters"] == "not recounted: torch is not installed"
    assert said["scores"] == "not recomputed: no per-item outcomes"
    assert "does not tell which seeds" in said["seeds"]
    assert said["protocol id"] == "ids were not recomputed"
    assert report.problems == ()


def _unavailable(configuration: object) -> dict[str, int]:
    raise UnavailableError("torch is not installed")


def test_uncommitted_code_and_mixed_versions_are_told(records: Records) -> None:
    records.change("hc/seed1", put("provenance.dirty", True))
    records.change("mhc/seed0", put("provenance.packages.numpy", "1.0"))
    texts = [note.text for note in records.verify().notes if note.check == "environment"]
    assert len(texts) == 2


def test_a_single_record_can_be_checked_alone(records: Records) -> None:
    report = verify([records.path("hc/seed1")], records.tools)
    assert report.problems == ()
    assert any("no folder was given" in note.text for note in report.notes)


def test_a_variant_may_have_fewer_seeds_if_no_more_were_started(records: Records) -> None:
    deleted("mhc/seed1")(records)
    for run in ("baseline/seed0", "baseline/seed1", "hc/seed0", "hc/seed1"):
        records.change(run, put("started.variants", ["baseline", "hc"]))
    records.change("mhc/seed0", put("started", {"seeds": [0], "variants": ["mhc"]}))
    assert records.verify().problems == ()


def test_every_variant_of_version_1_must_have_every_seed(tmp_path: Path) -> None:
    records = Records(tmp_path, 1)
    records.change("hc/seed0", each(put("identity.seed", 4), put("configuration.seed", 4)))
    records.path("hc/seed0").rename(records.path("hc/seed4"))
    missing = [problem.found for problem in records.verify().problems if problem.check == "seeds"]
    assert missing == ["no record of baseline seed 4", "no record of hc seed 0"]

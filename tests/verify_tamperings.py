"""Ways to tamper with valid records, each in one respect, as a forger would: digests are made right again."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tampering import Content, Records, each, echo, put

from mhc_bench.evidence.items import items_path
from mhc_bench.evidence.reproduction import Difference, Reproduction, reproduction_json
from mhc_bench.files import file_digest

OTHER = "0123456789abcdef" * 4
TASK = "world_piqa"


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
    records.tools = replace(records.tools, count=lambda configuration, rule: {"total": parameters["total"]})


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


def cancelling(left: float) -> list[list[float]]:
    """A matrix whose rows and columns sum to `left`, of entries ten thousand times as large."""
    return [[1e4 + left, -1e4], [-1e4, 1e4 + left]]

"""The tamperings of which every check must see those that are meant for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tampering import Records, put, scale
from verify_tamperings import (
    LOSS_DIFFERS,
    MMLU,
    OTHER,
    PART,
    POINT,
    PROBE,
    TASK,
    T,
    again_elsewhere,
    as_tuned,
    borrowed,
    broken,
    cancelling,
    colliding,
    corrected,
    deleted,
    editions,
    everywhere,
    fast_steps,
    indented,
    items_of,
    judged,
    low_start,
    lower_loss,
    miscounted,
    of,
    one_made_right,
    one_more_right,
    orphan,
    over_depth,
    rename,
    renamed_folder,
    repacked_items,
    repeated,
    reproduction_of,
    twice,
    unevaluated,
)

from mhc_bench.evidence.items import items_path


@dataclass(frozen=True)
class Case:
    """A tampering, and the one check that must see it."""

    check: str
    what: str
    tamper: Callable[[Records], object]
    version: int = 2


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
    Case(
        "depth", "a larger sum of entries that cancel", of("hc/seed1", over_depth("product", cancelling(9.0)))
    ),
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

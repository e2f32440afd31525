"""The conformance kit finds what is broken: each variant of the zoo fails the check that is meant for it."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import variant_zoo as zoo
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mhc_bench import cli
from mhc_bench.kit import CHECKS, SLOW, assert_conforms, check_variant
from mhc_bench.residual import ResidualConnection

FAST = [check.name for check in CHECKS if check.name not in SLOW]
BROKEN = [
    (zoo.TransposedMixing, "maps", "res is transposed"),
    (zoo.OtherGates, "maps", "read differs"),
    (zoo.SequenceMean, "causality", "changes what is before it"),
    (zoo.SequenceMean, "future", "changes logits before it"),
    (zoo.FutureWrite, "causality", "changes what is before it"),
    (zoo.FoldedStreams, "batch-independence", "with others beside it"),
    (zoo.BatchNorm, "batch-independence", "with others beside it"),
    (zoo.Frozen, "gradients", "bias of sublayer 0 is frozen"),
    (zoo.Detached, "gradients", "weight of sublayer 0 is unused"),
    (zoo.Cold, "gradients", "weight of sublayer 0 is zero"),
    (zoo.UnusedParameter, "gradients", "spare of sublayer 0 is unused"),
    (zoo.UndeclaredInert, "gradients", "name it in inert_parameters"),
    (zoo.NotFinite, "gradients", "is not finite"),
    (zoo.FalselyInert, "inert", "gate of sublayer 0 is declared inert"),
    (zoo.StateOnSelf, "carry", "self.kept"),
    (zoo.GrowingList, "carry", "self.norms"),
    (zoo.MovingAverage, "carry", "self.mean"),
    (zoo.FloatCarry, "carry", "something else than tensors"),
    (zoo.Bf16Maps, "fp32-maps", "bfloat16"),
    (zoo.Bf16Inside, "fp32-maps", "bf16"),
    (zoo.UnderAutocast, "fp32-maps", "under autocast"),
    (zoo.UnderAutocast, "autocast-gradients", "under autocast are off"),
    (zoo.Unseeded, "determinism", "draws random numbers"),
    (zoo.EveryOtherCall, "determinism", "same input differ"),
    (zoo.UnseededStart, "initial-values", "same generator differ"),
    (zoo.TakesAnyName, "initial-values", "does not exist"),
    (zoo.DrawsWhenBuilt, "building", "draws from torch's generator"),
    (zoo.ScaledStart, "start", "declared exact"),
    (zoo.FarStart, "start", "declared within 1.0e-03"),
    (zoo.UndeclaredStart, "start", "is the baseline's"),
    (zoo.StreamInPlace, "in-place", "write edits the stream"),
    (zoo.UpdateInPlace, "in-place", "write edits the sublayer's output"),
    (zoo.EmbeddingInPlace, "in-place", "expand edits the embedding"),
    (zoo.ChangedNorm, "shared-weights", "stock model computes something else"),
    (zoo.NeedsTwoStreams, "one-stream", "IndexError"),
    (zoo.OneWidth, "sizes", "invalid for input"),
    (zoo.WidensDtype, "shapes", "read gives torch.float32"),
    (zoo.FoldedShape, "shapes", "read gives shape"),
    (zoo.ViewOfStream, "views", "collapse gives a view"),
    (zoo.OtherWriteRead, "write-read", "differs"),
    (zoo.ScalarParameter, "declarations", "no scalars"),
    (zoo.DecaysGate, "declarations", "is no matrix"),
    (zoo.NamesNoParameter, "declarations", "names gates"),
    (zoo.HiddenTensor, "overhead", "self.extra"),
    (zoo.SequenceLength, "cache", "KV cache"),
    (zoo.OwnPositions, "cache", "KV cache"),
    (zoo.EveryOtherCall, "recompute", "changes the gradient"),
    (zoo.Numbered, "saving", "must be saved"),
    pytest.param(zoo.DataDependent, "compilation", "graph breaks", marks=pytest.mark.kit),
    pytest.param(zoo.OfRank, "sharding", "two ranks disagree", marks=pytest.mark.kit),
    pytest.param(zoo.Bf16Maps, "sharding", "on two ranks: RuntimeError", marks=pytest.mark.kit),
]


@pytest.fixture(autouse=True)
def stock_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a variant of the zoo makes of it, it is put back."""
    monkeypatch.setattr(LlamaRMSNorm, "forward", LlamaRMSNorm.forward)


@pytest.mark.parametrize(("kind", "check", "reason"), BROKEN)
def test_what_is_broken_fails_its_check_with_a_reason_and_a_line(
    kind: type[ResidualConnection], check: str, reason: str
) -> None:
    (found,) = check_variant(kind, only=[check]).outcomes
    assert found.status == "fail"
    assert reason in found.reason and "\n" not in found.reason
    file, _, line = found.line.rpartition(":")
    own = [cls for cls in kind.__mro__ if cls.__module__ == Path(file).stem]
    spans = [(first, first + len(lines)) for lines, first in map(inspect.getsourcelines, own)]
    assert any(first <= int(line) < last for first, last in spans)


@pytest.mark.parametrize("kind", [zoo.Sound, zoo.Plain])
@pytest.mark.parametrize(
    "check", [*FAST, *(pytest.param(name, marks=pytest.mark.kit) for name in sorted(SLOW))]
)
def test_a_sound_variant_fails_none(kind: type[ResidualConnection], check: str) -> None:
    assert_conforms(kind, check)


def test_every_check_is_failed_by_some_variant() -> None:
    """A check that nothing fails would be no check."""
    failed = {case.values[1] if hasattr(case, "values") else case[1] for case in BROKEN}
    assert failed == {check.name for check in CHECKS}


def test_a_failure_points_at_the_method_or_the_attribute() -> None:
    def pointed(kind: type[ResidualConnection], check: str) -> str:
        (found,) = check_variant(kind, only=[check]).outcomes
        lines = Path(zoo.__file__).read_text(encoding="utf-8").splitlines()
        return lines[int(found.line.rpartition(":")[2]) - 1].strip()

    assert pointed(zoo.StateOnSelf, "carry") == "hidden, self.kept = super().read(stream)"
    assert pointed(zoo.UnusedParameter, "gradients") == "self.spare = empty(width)"
    assert pointed(zoo.FutureWrite, "causality").startswith("def write(")
    assert pointed(zoo.NeedsTwoStreams, "one-stream").startswith("return stream[..., 0, :]")


def test_the_helper_for_other_projects_says_the_reason_and_the_line() -> None:
    with pytest.raises(AssertionError, match=r"start: the start is declared exact.*sound_variants.py:\d+\)"):
        assert_conforms("variant_zoo:ScaledStart", "start")
    assert assert_conforms("variant_zoo:Plain", "start").reason == "exact"


def test_the_command_tells_what_fails_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "variant_zoo:StateOnSelf", "streams=3", "--only", "carry", "shapes"]
    assert cli.main(words) == 1
    table = capsys.readouterr().out
    assert re.search(r"carry +fail", table) and re.search(r"shapes +pass", table)
    assert "does not conform: 1 passed, 1 failed" in " ".join(table.split())
    assert cli.main([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["conforms"], told["options"]) == (False, {"streams": 3})
    assert [each["status"] for each in told["outcomes"]] == ["fail", "pass"]
    assert cli.main(["check", "variant_zoo:Plain", "--only", "carry", "--backbone", "gemma2"]) == 0

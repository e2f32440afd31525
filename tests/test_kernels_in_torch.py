"""The Triton operations inside torch: its checks of operators, compilation, recomputation, grafted models."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child, on_ranks
from interpreted import interpreted, start_interpreting
from model_factory import grafted, token_ids
from test_kernels import Case, coefficients, numbers, parameters
from tiny_runs import tiny_run, write_corpus
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from mhc_bench.errors import UsageError
from mhc_bench.model import use_operations
from mhc_bench.model.recompute import recompute_blocks
from mhc_bench.ops.choice import operations_named

CASE = Case("mhc", 3, 3, 8, 1.0, 2)


def inputs() -> list[Tensor]:
    """Streams, update and mHC's parameters, fp32."""
    given = [numbers(3, 3, 8, seed=1), numbers(3, 8, seed=2), *parameters(CASE)]
    return [each.float().requires_grad_() for each in given]


def two_sublayers(stream: Tensor, update: Tensor, *given: Tensor) -> Tensor:
    operations, own = operations_named("triton"), coefficients(CASE, list(given))
    first = operations.read(torch.sin(stream), own)
    between = torch.tanh(first.hidden) + update
    _, read = operations.write_read(first.through, between, first.post, first.res, own)
    stream = operations.write(read.through, torch.tanh(read.hidden) + update, read.post, read.res)
    return stream.square().sum()


def gradients(function: Any) -> list[Tensor]:
    given = inputs()
    return list(torch.autograd.grad(function(*given), given))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about its own tracing
def test_compiling_and_checkpointing_change_no_gradient() -> None:
    def work() -> list[list[Tensor]]:
        compiled = torch.compile(two_sublayers, fullgraph=True, backend="aot_eager")
        again = lambda *given: checkpoint(two_sublayers, *given, use_reentrant=False)  # noqa: E731
        return [gradients(each) for each in (two_sublayers, compiled, again)]

    plain, compiled, again = interpreted(work)
    assert all(each.abs().max() > 0 for each in plain)
    for ours, expected in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert all(map(torch.equal, again, plain))


def test_the_operators_pass_the_checks_of_torch() -> None:
    def work() -> None:
        from torch.library import opcheck

        from mhc_bench.ops.kernels import operators

        stream, update = inputs()[:2]
        pre, post, res = (numbers(3, *shape, seed=3).float() for shape in ((3,), (3,), (3, 3)))
        tracked = [each.requires_grad_() for each in (pre, post, res)]
        opcheck(operators.write, (stream, update, *tracked[1:]))
        opcheck(operators.aggregate, (stream, tracked[0]))
        opcheck(operators.project, (stream, numbers(5, 24, seed=4).float().requires_grad_(), 1e-3))
        weight, static, gates = (numbers(*shape, seed=5).float() for shape in ((15, 24), (5, 3), (3,)))
        opcheck(operators.write_read, (stream, update, *tracked[1:], weight, static, gates, 2, 1e-3, False))
        plain = stream.detach()
        opcheck(operators.coefficients, (plain, weight, static, gates, 2, 1e-3, False))

    interpreted(work)


def test_streams_that_come_from_nowhere_can_be_written() -> None:
    """`write` hides nothing in the gradient of what it is given."""

    def work() -> list[Tensor]:
        results = []
        for name in ("triton", "eager"):
            given = [
                numbers(3, *shape, seed=k).float() for k, shape in enumerate(((3, 8), (8,), (3,), (3, 3)))
            ]
            leaves = [each.requires_grad_() for each in given]
            total = operations_named(name).write(*leaves).square().sum()
            results.append(torch.cat([each.flatten() for each in torch.autograd.grad(total, leaves)]))
        return results

    torch.testing.assert_close(*interpreted(work), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_stream_with_several_uses_is_whole() -> None:
    """`through` written, read a second time and used plainly, or not at all."""

    def uses(name: str) -> list[Tensor]:
        operations, given = operations_named(name), inputs()
        own = coefficients(CASE, given[2:])
        stream = given[0] * 1
        first, second = operations.read(stream, own), operations.read(stream, own)
        total = operations.write(first.through, given[1], second.post, first.res).square().sum()
        total = total + (second.hidden * stream.sum(1)).sum() + second.through.sin().sum()
        alone = operations.read(stream, own).res.square().sum()
        return [*torch.autograd.grad(total, given, retain_graph=True), *torch.autograd.grad(alone, given[:1])]

    for ours, expected in zip(interpreted(lambda: uses("triton")), uses("eager"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_what_was_kept_may_lie_in_memory_in_any_order() -> None:
    """What a kernel fills must be the tensor that is handed on, not a contiguous copy of it."""

    def work() -> list[list[Tensor]]:
        from mhc_bench.ops.kernels import operators

        given = inputs()
        stream, weight, static, gates = (
            given[0].detach(),
            *(numbers(*shape, seed=5).float() for shape in ((15, 24), (5, 3), (3,))),
        )
        pre, post, res, *kept = operators.coefficients(stream, weight, static, gates, 2, 1e-3, False)
        grads = stream, given[1].detach(), pre, post, res, pre
        turned = [each.transpose(0, -1).contiguous().transpose(0, -1) for each in kept]
        assert not any(each.is_contiguous() for each in turned)
        return [
            list(operators.read_backward(stream, *grads, *each, weight, static, gates, 2, False))
            for each in (kept, turned)
        ]

    plain, turned = interpreted(work)
    assert all(map(torch.equal, plain, turned))


class Calls(TorchDispatchMode):
    """Counts our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "mhc_bench":
            self.counted[func._opname] += 1
        return func(*args, **(kwargs or {}))


def step(name: str, variant: str, streams: int, blocks: int = 0) -> tuple[dict[str, Tensor], Counter[str]]:
    """The gradients of a grafted model's training step, and which of our operators made them."""
    rounds = {"sinkhorn_iterations": 3} if variant == "mhc" else {}
    model = grafted("llama", variant, streams=streams, **rounds).train()
    use_operations(model, name)
    if blocks:
        recompute_blocks(model, blocks)
    with Calls() as calls:
        model(input_ids=token_ids(1, 3), use_cache=False).logits.square().mean().backward()
    return {key: each.grad for key, each in model.named_parameters() if each.grad is not None}, calls.counted


@pytest.mark.parametrize(("variant", "streams"), [("hc", 2), ("mhc", 2), ("mhc", 5)])
def test_a_training_step_of_a_grafted_model_runs_on_the_operators(variant: str, streams: int) -> None:
    """Of three layers, six sublayers; blocks of two layers have a stream between them."""
    plain, whole, two = interpreted(
        lambda: [step("triton", variant, streams, sublayers) for sublayers in (0, 6, 4)]
    )
    expected, none = step("eager", variant, streams)
    assert plain[1] == sum(operators(1), Counter()) and not none
    assert whole[1] == sum((*operators(1), operators(1)[0]), Counter())
    assert two[1] == sum((*operators(2), operators(2)[0]), Counter())
    for name, gradient in expected.items():
        torch.testing.assert_close(plain[0][name], gradient, rtol=1e-3, atol=1e-5)
        assert torch.equal(whole[0][name], plain[0][name]), name
        torch.testing.assert_close(two[0][name], gradient, rtol=1e-3, atol=1e-5)


def operators(pieces: int) -> tuple[Counter[str], Counter[str]]:
    """Forward and backward: within a piece of the six sublayers each write is one with the next read."""
    forward = {"coefficients": pieces, "aggregate": pieces, "write_read": 6 - pieces, "write": pieces}
    backward = {"read_backward": pieces, "write_read_backward": 6 - pieces, "write_backward": pieces}
    return Counter(forward), Counter(backward)


@pytest.mark.parametrize("kind", ["mhc", "hc"])
def test_writing_and_reading_at_once_keeps_both_streams_and_the_projection(kind: str) -> None:
    """Beside the operands and the parameters: what was written, H_pre, the projection and its 1 / RMS."""
    case = CASE._replace(kind=kind)

    def work() -> tuple[int, int]:
        kept: dict[int, int] = {}
        leaves = [each.float().requires_grad_() for each in (numbers(3, 3, 8, seed=1), numbers(3, 8, seed=2))]
        maps = [numbers(3, *shape, seed=1).float().requires_grad_() for shape in ((3,), (3, 3))]
        given = [each.float().requires_grad_() for each in parameters(case)]

        def keep(x: Tensor) -> Tensor:
            kept[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            operations_named("triton").write_read(*leaves, *maps, coefficients(case, given))
        of_parameters = sum(each.numel() for each in given)
        return sum(kept.values()) - of_parameters, sum(each.numel() for each in (*leaves, *maps))

    kept, operands = interpreted(work)
    tokens, n, width = 3, 3, 8
    assert kept == operands + tokens * (n * width + n + n * (2 + n) + n)


def test_writing_keeps_its_inputs_and_nothing_else() -> None:
    def work() -> tuple[list[int], list[int]]:
        kept: list[int] = []
        leaves = [
            numbers(3, *shape, seed=1).float().requires_grad_() for shape in ((3, 8), (8,), (3,), (3, 3))
        ]
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
            operations_named("triton").write(*leaves)
        return kept, [each.data_ptr() for each in leaves]

    kept, given = interpreted(work)
    assert sorted(kept) == sorted(given)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    os.environ["MHC_BENCH_CACHE"] = str(tmp_path / "cache")
    yield write_corpus(tmp_path / "corpus")


@pytest.mark.ranks
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 5e-6), ("bf16", 5e-3)])
def test_two_sharded_ranks_train_as_with_eager_operations(
    corpus: Path, tmp_path: Path, precision: str, apart: float
) -> None:
    from mhc_bench.training import fit

    def work(rank: int) -> list[float]:
        start_interpreting()
        losses = []
        for name in ("triton", "eager"):
            sharded = {"hardware__sharding": "fsdp", "hardware__devices": 2, "hardware__operations": name}
            few = {"training__sequence_length": 4, "training__batch_tokens": 8, "data__validation_tokens": 8}
            few["training__precision"] = precision
            run = tiny_run(corpus, "mhc", steps=2, **few, **sharded)
            run.model.backbone["num_hidden_layers"] = 1
            run.variant.options = {"streams": 2, "sinkhorn_iterations": 2}
            summary = fit(run, tmp_path / name)
            losses.append([point["loss"] for point in summary.loss_curve])
        return losses

    for code, (triton, eager) in on_ranks(work):
        assert code == 0 and len(triton) == 2
        assert triton == pytest.approx(eager, abs=apart)


def test_a_cpu_is_refused_outside_the_interpreter_in_one_line() -> None:
    given = inputs()
    with pytest.raises(
        UsageError, match=r"^operations 'triton' on a cpu tensor: expected a CUDA device, .*$"
    ):
        operations_named("triton").read(given[0], coefficients(CASE, given[2:]))


def test_more_streams_than_eight_and_float64_are_refused() -> None:
    def work() -> list[str]:
        said = []
        for stream in (torch.zeros(1, 9, 8), torch.zeros(1, 2, 8).double()):
            with pytest.raises(UsageError) as caught:
                operations_named("triton").aggregate(stream, torch.zeros(stream.shape[:2]))
            said.append(str(caught.value))
        return said

    streams, dtype = interpreted(work)
    assert streams == "streams 9: expected 1 to 8 for the Triton kernels"
    assert dtype.startswith("streams in torch.float64: expected fp32, bf16 or fp16")


def test_without_the_package_the_choice_is_refused_in_one_line() -> None:
    import sys

    def work() -> str:
        for name in [each for each in sys.modules if each.startswith(("triton", "mhc_bench.ops.fused"))]:
            del sys.modules[name]
        for name in [each for each in sys.modules if each.startswith("mhc_bench.ops.kernels")]:
            del sys.modules[name]
        sys.modules["triton"] = None  # type: ignore[assignment]
        with pytest.raises(UsageError) as caught:
            operations_named("triton")
        return str(caught.value)

    assert in_child(work) == (0, "operations 'triton': expected the package 'triton', or 'eager'")

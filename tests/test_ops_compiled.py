"""The C++ operations: every size, odd shapes, extreme logits, exact gradients, the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mhc_bench.errors import UsageError
from mhc_bench.files import write_text
from mhc_bench.model import graft, use_operations
from mhc_bench.model.recompute import recompute_blocks, recompute_layers
from mhc_bench.ops.choice import Workload, chosen, operations_named
from mhc_bench.ops.native import build
from mhc_bench.ops.types import Coefficients, HcCoefficients, MhcCoefficients, Read

ITERATIONS = 6
KINDS = pytest.mark.parametrize("kind", ["hc", "mhc"])


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this module builds is built once and outside the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MHC_BENCH_CACHE", os.fspath(tmp_path_factory.getbasetemp() / "cache"))
        yield


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameters(kind: str, n: int, width: int, size: float = 1.0) -> list[Tensor]:
    """fp64; the logits' standard deviation is about `size`."""
    sizes = (n, n, n * n)
    if kind == "hc":
        shapes: list[tuple[int, ...]] = [(2 + n, width), (n,), (n,), (n, n), (1,), (1,)]
        weight, *others = (drawn(*shape, seed=1 + k) for k, shape in enumerate(shapes))
        return [weight * size / width**0.5, *others]
    phi = [drawn(k, n * width, seed=k) / (n * width) ** 0.5 for k in sizes]
    bias = [size * drawn(k, seed=7 + place) for place, k in enumerate(sizes)]
    return [*phi, *bias, *(torch.full((1,), size, dtype=torch.float64) for _ in sizes)]


def coefficients(p: list[Tensor]) -> Coefficients:
    if len(p) == 6:
        return HcCoefficients(p[0], (p[1], p[2], p[3]), (p[4], p[5]), 1e-6)
    return MhcCoefficients((p[0], p[1], p[2]), (p[3], p[4], p[5]), (p[6], p[7], p[8]), ITERATIONS, 1e-6)


def boundary(name: str, stream: Tensor, *p: Tensor) -> tuple[Tensor, ...]:
    """A read, a nonlinear F, a fused write and read, another F and a write: all that they give."""
    operations, made = operations_named(name), coefficients(list(p))
    first = operations.read(stream, made)
    written, second = operations.write_read(
        first.through, torch.tanh(first.hidden), first.post, first.res, made
    )
    last = operations.write(second.through, torch.sin(second.hidden), second.post, second.res)
    return last, written, *second[:4], *first[:4]


def with_gradients(name: str, given: list[Tensor]) -> list[Tensor]:
    given = [each.detach().requires_grad_() for each in given]
    values = boundary(name, *given)
    weights = [drawn(*each.shape, seed=60 + k, dtype=each.dtype) for k, each in enumerate(values)]
    total = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
    return [*values, *torch.autograd.grad(total, given)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "lead", "width", "size"),
    [
        (1, (1, 1), 5, 1.0),
        (3, (2, 17), 12, 16.0),
        (4, (3, 11), 40, 1.0),
        (8, (1, 19), 9, 0.01),
        # over 4 MiB of streams, which are stored past the caches, in whole vectors and not
        (4, (2, 520), 256, 1.0),
        (4, (1, 1100), 243, 1.0),
    ],
)
@KINDS
def test_values_and_gradients_are_the_oracles(
    kind: str, n: int, lead: tuple[int, int], width: int, size: float
) -> None:
    exact = [drawn(*lead, n, width, seed=0), *parameters(kind, n, width, size)]
    expected = with_gradients("reference", exact)
    ours = with_gradients("compiled", [each.float() for each in exact])
    for place, (mine, other) in enumerate(zip(ours, expected, strict=True)):
        # fp32 itself: a column of logits of size 16 leaves 1e-6 of them to its exponentials
        error = (mine.double() - other).abs().max() / other.abs().max().clamp(min=1e-2)
        assert error < 3e-6 * max(1.0, size) * ITERATIONS, f"{place}: {error:.1e}"


@KINDS
def test_gradients_pass_a_check_by_finite_differences(kind: str) -> None:
    given = [drawn(1, 2, 3, 5, seed=0), *parameters(kind, 3, 5)]
    leaves = [each.requires_grad_() for each in given]
    assert torch.autograd.gradcheck(lambda *x: boundary("compiled", *x), leaves, atol=1e-7, rtol=1e-5)


def read_and_gradient(logits: Tensor) -> tuple[Tensor, Tensor]:
    """res of one token with the given logits [n, n], and the gradient that a fixed loss gives them."""
    n, p = len(logits), parameters("mhc", len(logits), 8, 0.0)
    p[5] = logits.flatten()
    p = [each.float().requires_grad_() for each in p]
    read: Read = operations_named("compiled").read(drawn(1, 1, n, 8, seed=0).float(), coefficients(p))
    (grad,) = torch.autograd.grad((read.res * drawn(1, 1, n, n, seed=9).float()).sum(), [p[5]])
    return read.res[0, 0], grad.view(n, n)


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_large_logits_do_not_overflow(size: float) -> None:
    for logits in (size * drawn(4, 4, seed=3), torch.full((4, 4), -size), size * torch.eye(4)):
        res, grad = read_and_gradient(logits)
        torch.testing.assert_close(res.sum(1), torch.ones(4))
        assert grad.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_never_repaired(bad: float) -> None:
    logits = drawn(4, 4, seed=3)
    logits[1, 2] = bad
    res, grad = read_and_gradient(logits)
    assert res.isnan().all()
    assert grad.isnan().all()
    stream = drawn(2, 20, 4, 16, seed=0).float()
    stream[1, 3, 2, 5] = float("nan")
    values = boundary("compiled", stream, *(each.float() for each in parameters("mhc", 4, 16)))
    for value in values:
        broken = value.flatten(2).isnan().any(-1)
        assert broken[1, 3]
        assert broken.sum() == 1  # the other tokens know nothing of it


@pytest.mark.parametrize("width", [16, 256])
@KINDS
def test_the_same_bits_again_with_more_threads_and_from_any_layout(kind: str, width: int) -> None:
    tokens = 1100  # three parts
    given = [drawn(1, tokens, 4, width, seed=0), *parameters(kind, 4, width)]
    given = [each.float() for each in given]
    first = with_gradients("compiled", given)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = with_gradients("compiled", given)
    finally:
        torch.set_num_threads(before)
    strided = [each.transpose(0, -1).contiguous().transpose(0, -1) for each in given]
    for other in (again, with_gradients("compiled", strided)):
        assert all(map(torch.equal, first, other))


def test_bf16_streams_are_computed_in_fp32_whatever_autocast_says() -> None:
    given = [drawn(2, 9, 4, 16, seed=0).bfloat16(), *(each.float() for each in parameters("mhc", 4, 16))]
    ours = with_gradients("compiled", given)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, ours, with_gradients("compiled", given)))
    expected = with_gradients("eager", given)
    for mine, other in zip(ours, expected, strict=True):
        assert mine.dtype == other.dtype
        error = (mine.double() - other.double()).abs().max() / other.double().abs().max()
        assert error < 2e-2


def saved_bytes(run: Callable[[], object], apart_from: list[Tensor]) -> int:
    """Bytes of the storages that autograd keeps, each once, without those of `apart_from`."""
    known = {each.untyped_storage().data_ptr() for each in apart_from}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    assert result is not None
    return sum(each.untyped_storage().nbytes() for each in kept.values())


@pytest.mark.parametrize(("kind", "rows", "entries"), [("hc", 4, 6), ("mhc", 1, 24)])
def test_read_keeps_its_projections_and_write_its_operands(kind: str, rows: int, entries: int) -> None:
    n, width, tokens = 4, 16, 38
    operations = operations_named("compiled")
    stream = drawn(2, 19, n, width, seed=0).float().requires_grad_()
    p = [each.float().requires_grad_() for each in parameters(kind, n, width)]
    made, update = coefficients(p), drawn(2, 19, width, seed=5).float()
    of_read = 4 * tokens * rows * (entries + 1)
    assert saved_bytes(lambda: operations.read(stream, made), [stream, *p]) == of_read
    read = operations.read(stream, made)
    of_maps = 4 * tokens * (n + n * n)
    inputs = [stream, *p]
    write = read.through, update, read.post, read.res
    assert saved_bytes(lambda: operations.write(*write), inputs) == of_maps + 4 * tokens * width
    of_both = of_maps + 4 * tokens * width + 4 * tokens * n * width + of_read
    assert saved_bytes(lambda: operations.write_read(*write, made), inputs) == of_both


def model(variant: str, operations: str = "compiled") -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    made = graft(LlamaForCausalLM(config), variant).train()
    use_operations(made, operations)
    return made


def gradients(made: nn.Module) -> list[Tensor]:
    made(input_ids=torch.arange(24).view(2, 12) % 16, use_cache=False).logits.square().mean().backward()
    return [each.grad for each in made.parameters() if each.grad is not None]


@KINDS
def test_recomputation_changes_no_bit(kind: str) -> None:
    kept, layers, blocks = model(kind), model(kind), model(kind)
    recompute_layers(layers)  # type: ignore[arg-type]
    recompute_blocks(blocks, 4)  # type: ignore[arg-type]
    expected = gradients(kept)
    for other in (layers, blocks):
        assert all(map(torch.equal, expected, gradients(other)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", r"ignore:The \.grad attribute:UserWarning")
@pytest.mark.parametrize("name", [pytest.param("eager", marks=pytest.mark.long), "compiled"])
def test_layers_compile_as_one_graph_each(name: str) -> None:
    """Traced and differentiated by torch's compiler; its code generator, which takes long, is left out."""
    eager, traced = model("mhc", name), model("mhc", name)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in traced.model.layers:  # type: ignore[union-attr,attr-defined]
        layer.compile(backend="aot_eager", fullgraph=True)
    found = gradients(traced)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    # 20 rounds of Sinkhorn, or a whole read, are one operator each
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] < 250
    torch._dynamo.reset()
    for mine, other in zip(found, gradients(eager), strict=True):
        torch.testing.assert_close(mine, other)


def test_without_a_compiler_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"no C\+\+ compiler here .*use 'eager'"):
        operations_named("compiled")


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("MHC_BENCH_CACHE", os.fspath(tmp_path))
    with pytest.raises(UsageError, match="false cannot build"):
        build.kernels(7, torch.float32)
    assert not list(tmp_path.rglob("*.so"))
    assert chosen("auto", Workload("cpu", 10**9, 7)).operations == "eager"


def unwritable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("MHC_BENCH_CACHE", os.fspath(folder / "file" / "cache"))


def unknown(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MHC_BENCH_CACHE")
    monkeypatch.setattr(Path, "home", home)


def unloadable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("MHC_BENCH_CACHE", os.fspath(folder))
    monkeypatch.setattr(build, "_compile", lambda _, library: write_text(library, "no library"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (unwritable, "Not a directory"),
        (unknown, "Could not determine home directory"),
        (unloadable, "file too short"),
    ],
)
def test_a_library_that_cannot_be_kept_or_loaded_is_refused_in_one_line_and_auto_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: Callable[..., None], reason: str
) -> None:
    spoil(monkeypatch, tmp_path)
    given = [each.float() for each in (drawn(1, 2, 7, 8, seed=0), *parameters("mhc", 7, 8))]
    with pytest.raises(UsageError, match=f"cannot be built and loaded .*{reason}.*use 'eager'"):
        boundary("compiled", *given)
    choice = chosen("auto", Workload("cpu", 10**9, 7))
    assert choice.operations == "eager" and reason in choice.reason


def test_auto_compiles_for_long_runs_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = 1200 * 1024 * 8, 20 * 1024 * 8
    assert chosen("auto", Workload("cpu", long, 4)).operations == "compiled"
    assert chosen("auto", Workload("cpu", short, 4)).operations == "eager"
    assert chosen("auto", Workload("cpu", long, 1)).operations == "eager"
    assert chosen("auto", Workload("gpu", long, 4)).operations == "eager"
    assert chosen("auto").operations == "eager"
    assert chosen("reference", Workload("cpu", long, 4)).operations == "reference"
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler" in chosen("auto", Workload("cpu", long, 4)).reason

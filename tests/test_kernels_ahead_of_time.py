"""The kernels compile for sm_90 without spilling a register, at the shapes of real models."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from ahead_of_time import Resources, compiling

from mhc_bench.ops import kernels as package
from mhc_bench.ops.kernels import operators, writes
from mhc_bench.ops.kernels.blocks import (
    Sizes,
    gradient_blocks,
    mixing_backward_blocks,
    mixing_blocks,
    most_rows,
    product_blocks,
    sum_blocks,
    write_read_backward_blocks,
    write_read_blocks,
)
from mhc_bench.ops.kernels.launch import Projection
from mhc_bench.ops.kernels.writes import Write

WIDTHS = (1280, 1920, 2560, 4096, 7168)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ROOT = Path(__file__).parents[1]
RECORD = ROOT / "results" / "kernels-sm90.json"


def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def parameters(n: int, width: int, hc: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, static and gates."""
    weight = make(2 + n, width) if hc else make(n * (2 + n), n * width)
    return weight, make(2 + n, n), make(2 if hc else 3)


def launch_all(n: int, width: int, dtype: torch.dtype, tokens: int, hc: bool) -> None:
    """Every operator once, on the meta device."""
    stream, update = make(tokens, n, width, dtype=dtype), make(tokens, width, dtype=dtype)
    weight, static, gates = parameters(n, width, hc)
    run = {name: getattr(operators, name)._init_fn for name in NAMES}
    pre, post, res, normalised, inverse = run["coefficients"](stream, weight, static, gates, 20, 1e-6, hc)
    run["aggregate"](stream, pre)
    grads = stream, update, pre, post, res
    given = stream, update, post, res, weight, static, gates
    run["write_read"](*given, 20, 1e-6, hc)
    run["write_read_backward"](*given, stream, pre, normalised, inverse, *grads, 20, hc)
    run["write"](stream, update, post, res)
    run["write_backward"](stream, update, post, res, stream)
    run["read_backward"](stream, *grads, pre, normalised, inverse, weight, static, gates, 20, hc)
    if not hc:
        projected(stream, len(weight))
        run["aggregate_backward"](stream, pre, update)


def launch_fused(n: int, width: int, dtype: torch.dtype, tokens: int, hc: bool) -> None:
    """The two kernels of a write with the next read alone."""
    operands = Write(
        make(tokens, n, width, dtype=dtype),
        make(tokens, width, dtype=dtype),
        make(tokens, n),
        make(tokens, n, n),
    )
    projection = Projection(*parameters(n, width, hc), 20, 1e-6, hc)
    written, pre, _, _, raw, radial = writes.write_coefficients(operands, projection)
    grads = written, operands.update
    writes.write_read_backward(operands, *grads, pre, raw, radial, projection.weight, hc)


def projected(stream: torch.Tensor, rows: int) -> None:
    """A projection and its backward pass."""
    n, width = stream.shape[-2:]
    weight = make(rows, n * width)
    kept = operators.project._init_fn(stream, weight, 1e-6)
    operators.project_backward._init_fn(stream, weight, *kept, kept[0])


NAMES = (
    "coefficients",
    "aggregate",
    "write",
    "write_backward",
    "write_read",
    "write_read_backward",
    "read_backward",
    "aggregate_backward",
)


def compiled(n: int, width: int, dtype: torch.dtype, tokens: int, hc: bool = False) -> dict[str, Resources]:
    with compiling() as results:
        launch_all(n, width, dtype, tokens, hc)
    return results


HOLDING_SUMS = {
    "aggregate_backward_kernel",
    "coefficients_backward_kernel",
    "stream_gradient_kernel",
    "write_backward_kernel",
}
"""With more than four streams they spread over more threads, each of which loads less at a time."""


def checked(results: dict[str, Resources], kernels: int = 6, narrow: Collection[str] = ()) -> None:
    """So many kernels at least; nothing spills, no stream goes to memory element by element. Printed.

    All but those called `narrow` have accesses of 16 bytes.
    """
    print(*(f"{name} {each}" for name, each in sorted(results.items())), sep="\n")
    assert len(results) >= kernels
    for name, each in results.items():
        assert each.spilled == 0, name
        assert each.registers <= 255 and each.shared <= 227 * 1024, name
        assert (each.wide or name in narrow) and not each.lone, name


@pytest.mark.parametrize("width", WIDTHS)
def test_four_streams_in_bf16_spill_nothing_at_the_papers_widths(width: int) -> None:
    """Compiled once: the widths do not differ in anything that a kernel is specialised on."""
    checked(compiled(4, width, torch.bfloat16, 16384))


@pytest.mark.parametrize("kind", ["mhc", "hc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_recorded_registers_and_memory_are_what_is_compiled(kind: str, dtype: str) -> None:
    """Of 2560 channels and 16384 tokens; `python tests/test_kernels_ahead_of_time.py` writes the file."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["triton"] == triton.__version__
    found = compiled(4, 2560, DTYPES[dtype], 16384, kind == "hc")
    checked(found)
    assert {name: each._asdict() for name, each in found.items()} == record["kernels"][f"{kind} {dtype}"]


def test_the_registers_in_the_documents_are_the_recorded_ones() -> None:
    kernels = json.loads(RECORD.read_text(encoding="utf-8"))["kernels"]
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for label, name in (
        ("write with the next projection", "write_coefficients_kernel"),
        ("backward of write and read", "write_read_backward_kernel"),
    ):
        registers = [
            kernels[f"{kind} {dtype}"][name]["registers"] for kind in ("mhc", "hc") for dtype in DTYPES
        ]
        assert f"| {label} | {' | '.join(map(str, registers))} |" in text


@pytest.mark.parametrize("n", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["mhc", "hc"])
def test_a_write_with_the_next_read_spills_nothing_at_more_than_four_streams(kind: str, n: int) -> None:
    with compiling() as results:
        for dtype in DTYPES.values():
            launch_fused(n, 2560, dtype, 16384, kind == "hc")
    checked(results, 2)


@pytest.mark.parametrize("n", [1, 4, 5, 8])
@pytest.mark.parametrize("kind", ["mhc", "hc"])
def test_a_write_with_the_next_read_spills_nothing_at_odd_widths(kind: str, n: int) -> None:
    with compiling() as results:
        for dtype in DTYPES.values():
            launch_fused(n, 1001, dtype, 16384, kind == "hc")
    assert {each.spilled for each in results.values()} == {0}, results


@pytest.mark.parametrize("n", [1, 4, 5, 8])
def test_projections_of_as_many_rows_as_are_allowed_spill_nothing(n: int) -> None:
    with compiling() as results:
        projected(torch.empty(16384, n, 2560, dtype=torch.bfloat16, device="meta"), most_rows(n))
    assert {each.spilled for each in results.values()} == {0}, results


def kernels() -> dict[str, Any]:
    """All kernels by name."""
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}")
        for each in pkgutil.iter_modules(package.__path__)
    ]
    return {
        name: each for module in modules for name, each in vars(module).items() if name.endswith("_kernel")
    }


@pytest.mark.parametrize("name", kernels())
def test_no_kernel_is_compiled_anew_for_a_number_of_tokens(name: str) -> None:
    counts = {
        each.name: each.do_not_specialize
        for each in kernels()[name].params
        if each.name in ("tokens", "share")
    }
    assert "tokens" in counts and all(counts.values())


@pytest.mark.parametrize("n", range(1, 9))
def test_blocks_change_with_the_number_of_tokens_in_three_steps_at_most(n: int) -> None:
    sizes = [Sizes(tokens, n, 2560) for tokens in (1, 5, 64, 1000, 4096, 8191, 8192, 16383, 16384, 10**6)]
    assert len({product_blocks(each) for each in sizes}) <= 3
    others = (mixing_blocks, mixing_backward_blocks, sum_blocks, lambda each: gradient_blocks(each)[0])
    assert all(len({of(each) for each in sizes}) == 1 for of in others)
    assert len({write_read_blocks(each) for each in sizes}) == 1
    assert all(len({write_read_backward_blocks(each, hc)[0] for each in sizes}) == 1 for hc in (False, True))


@pytest.mark.grid
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("hc", [False, True], ids=["mhc", "hc"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1000, 8192, 65536])
def test_nothing_spills(n: int, hc: bool, dtype: torch.dtype, tokens: int) -> None:
    checked(compiled(n, 2560, dtype, tokens, hc), narrow=HOLDING_SUMS if n > 4 else ())


if __name__ == "__main__":
    RECORD.write_text(
        json.dumps(
            {
                "target": "sm_90",
                "triton": triton.__version__,
                "kernels": {
                    f"{kind} {name}": {
                        kernel: each._asdict()
                        for kernel, each in sorted(compiled(4, 2560, dtype, 16384, kind == "hc").items())
                    }
                    for kind in ("mhc", "hc")
                    for name, dtype in DTYPES.items()
                },
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )

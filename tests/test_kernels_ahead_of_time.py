"""The kernels compile for sm_90 without spilling a register, at the shapes of real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ahead_of_time import Resources, compiling

from mhc_bench.ops.fused import MOST_FUSED_STREAMS
from mhc_bench.ops.kernels import operators

WIDTHS = (1280, 1920, 2560, 4096, 7168)


def launch_all(n: int, width: int, dtype: torch.dtype, tokens: int, hc: bool) -> None:
    """Every operator once, on the meta device."""

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    stream, update = make(tokens, n, width, dtype=dtype), make(tokens, width, dtype=dtype)
    weight = make(2 + n, width) if hc else make(n * (2 + n), n * width)
    static, gates = make(2 + n, n), make(2 if hc else 3)
    run = {name: getattr(operators, name)._init_fn for name in NAMES}
    pre, post, res, normalised, inverse = run["coefficients"](stream, weight, static, gates, 20, 1e-6, hc)
    run["aggregate"](stream, pre)
    grads = stream, update, pre, post, res
    if n <= MOST_FUSED_STREAMS:
        given = stream, update, post, res, weight, static, gates
        run["write_read"](*given, 20, 1e-6, hc)
        run["write_read_backward"](*given, stream, pre, normalised, inverse, *grads, 20, hc)
    run["write"](stream, update, post, res)
    run["write_backward"](stream, update, post, res, stream)
    run["read_backward"](stream, *grads, pre, normalised, inverse, weight, static, gates, 20, hc)
    if not hc:
        run["project"](stream, weight, 1e-6)
        run["aggregate_backward"](stream, pre, update)


NAMES = (
    "coefficients",
    "aggregate",
    "write",
    "write_backward",
    "write_read",
    "write_read_backward",
    "read_backward",
    "project",
    "aggregate_backward",
)


def compiled(n: int, width: int, dtype: torch.dtype, tokens: int, hc: bool = False) -> dict[str, Resources]:
    with compiling() as results:
        launch_all(n, width, dtype, tokens, hc)
    return results


def checked(results: dict[str, Resources], folder: Path, vectors: bool = True) -> None:
    """Nothing spills; what was found is written to `folder` and printed."""
    report = {name: each._asdict() for name, each in sorted(results.items())}
    (folder / "resources.json").write_text(json.dumps(report, indent=2))
    print(*(f"{name} {each}" for name, each in sorted(results.items())), sep="\n")
    assert len(results) >= 6
    for name, each in results.items():
        assert each.spilled == 0, name
        assert each.registers <= 255 and each.shared <= 227 * 1024, name
        assert each.vector_loads or not vectors, name


@pytest.mark.parametrize("width", WIDTHS)
def test_four_streams_in_bf16_spill_nothing_at_the_papers_widths(width: int, tmp_path: Path) -> None:
    """Compiled once: the widths do not differ in anything that a kernel is specialised on."""
    checked(compiled(4, width, torch.bfloat16, 16384), tmp_path)


def test_hcs_four_streams_in_bf16_spill_nothing(tmp_path: Path) -> None:
    checked(compiled(4, 2560, torch.bfloat16, 16384, hc=True), tmp_path)


@pytest.mark.grid
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("hc", [False, True], ids=["mhc", "hc"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1000, 8192, 65536])
def test_nothing_spills(n: int, hc: bool, dtype: torch.dtype, tokens: int, tmp_path: Path) -> None:
    checked(compiled(n, 2560, dtype, tokens, hc), tmp_path, vectors=n <= 4)

"""The kernels compiled for a GPU that is not here, exactly as they would be launched."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mhc_bench.ops.kernels import reads, writes

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
PTXAS = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"


class Resources(NamedTuple):
    """What a compiled kernel takes."""

    registers: int
    """Of each thread."""
    spilled: int
    """Bytes of each thread that went to memory and came back."""
    shared: int
    """Bytes of shared memory of each program."""
    wide: int
    """Accesses of 16 bytes to global memory, as written in the code."""
    narrow: int
    """Smaller ones: maps, weights of a padded table, and tiles of few channels."""
    lone: int
    """Of these, those of a single 16-bit element."""


class Recorder:
    """Stands for `launch`: compiles what would be launched; of a kernel compiled twice the worse counts."""

    def __init__(self, results: dict[str, Resources]) -> None:
        self.results = results

    def launch(self, kernel: Any, _: Any, args: Sequence[Any], num_warps: int, **constants: Any) -> None:
        names = kernel.arg_names
        constants |= {name: None for name, value in zip(names, args, strict=False) if value is None}
        signature = {name: described(value) for name, value in zip(names, args, strict=False)}
        signature |= dict.fromkeys(constants, "constexpr")
        variable = {names[each.num] for each in kernel.params if each.do_not_specialize}
        aligned = {
            (position,): [["tt.divisibility", 16]]
            for position, (name, value) in enumerate(zip(names, args, strict=False))
            if isinstance(value, Tensor)
            or (isinstance(value, int) and value % 16 == 0 and name not in variable)
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
        compiled = triton.compile(source, target=HOPPER, options={"num_warps": num_warps})
        found, before = resources(compiled), self.results.get(kernel.__name__)
        self.results[kernel.__name__] = found if before is None else worse(found, before)


def worse(one: Resources, other: Resources) -> Resources:
    """The larger of each number, the smaller of wide accesses."""
    most = Resources(*map(max, one, other))
    return most._replace(wide=min(one.wide, other.wide))


def described(value: Tensor | int | float) -> str:
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "i32" if isinstance(value, int) else "fp32"


def resources(compiled: Any) -> Resources:
    """From the assembler's own report."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "kernel.ptx"
        text.write_text(compiled.asm["ptx"])
        command = [str(PTXAS), "-v", "--gpu-name=sm_90a", str(text), "-o", str(Path(folder) / "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    stores, loads = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said).groups()  # type: ignore[union-attr]
    registers = re.search(r"Used (\d+) registers", said).group(1)  # type: ignore[union-attr]
    return Resources(
        int(registers), int(stores) + int(loads), compiled.metadata.shared, *accesses(compiled.asm["ptx"])
    )


def accesses(ptx: str) -> tuple[int, int, int]:
    """Wide, narrow and lone accesses to global memory.

    Raises:
        AssertionError: there is an atomic one, whose order and so whose sum's last bits are left open.
    """
    assert not re.search(r"\b(atom|red|multimem)\.", ptx)
    plain = re.findall(r"\b(?:ld|st)\.global\S*?((?:\.v\d)?)\.b(\d+)", ptx)
    widths = [int(vector[2:] or 1) * int(bits) // 8 for vector, bits in plain]
    widths += [int(size, 16) for size in re.findall(r"\bcp\.async\.c[ag]\S* [^;]*?, (0x\w+)", ptx)]
    assert widths
    return sum(w >= 16 for w in widths), sum(w < 16 for w in widths), sum(w < 4 for w in widths)


@contextmanager
def compiling() -> Iterator[dict[str, Resources]]:
    """Inside, the functions of `launch` compile their kernels for meta tensors. Kernel name -> resources."""
    recorder = Recorder({})
    with (
        mock.patch.object(reads, "launch", recorder.launch),
        mock.patch.object(writes, "launch", recorder.launch),
    ):
        yield recorder.results

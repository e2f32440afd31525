"""How fast GPUs are by their makers' data sheets: FLOP/s of dense products of 16-bit matrices."""

from __future__ import annotations

from collections.abc import Sequence

BF16 = (
    ("H100 NVL", 835e12),
    ("H100 PCIE", 756e12),
    ("H100", 989e12),
    ("GH200", 989e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
)
"""Beginning of a GPU's name, or of words in it -> multiplications and additions per second in bf16 with fp32
sums. From NVIDIA's data sheets of each product, which print them with 2:4 sparsity (H100 and H200 SXM 1979,
NVL 1671, H100 PCIe 1513, B200 4500, GB200 per GPU 5000 TFLOPS): half of that; A100 prints 312 dense. The
first that fits counts. Lightning has such a table too, but with the sparse figure for some."""
FP16 = (("V100", 125e12), ("T4", 65e12), ("4090", 330.3e12), ("3090", 142e12))
"""The same in fp16, of GPUs that have no bf16 or are slower in it."""


def bf16_flops(name: str) -> float | None:
    """What the GPU of that name does in bf16; None where that is not known."""
    return _find(name, BF16)


def most_flops(name: str) -> float | None:
    """What the GPU of that name does in the faster of bf16 and fp16; None where that is not known."""
    return _find(name, (*FP16, *BF16))


def _find(name: str, rates: Sequence[tuple[str, float]]) -> float | None:
    words = f" {name.upper().replace('-', ' ')}"
    return next((rate for part, rate in rates if f" {part}" in words), None)

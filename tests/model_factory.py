"""The conformance kit's tiny models, shared by the tests of the model package."""

from __future__ import annotations

from mhc_bench.kit.backbones import (
    DENSE,
    FAMILIES,
    OWN,
    VOCABULARY,
    backbone,
    grafted,
    stock,
    token_ids,
    tokenizer,
)

__all__ = [
    "DENSE",
    "FAMILIES",
    "OWN",
    "VOCABULARY",
    "backbone",
    "grafted",
    "stock",
    "token_ids",
    "tokenizer",
]

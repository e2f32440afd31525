"""Every variant in a whole model, beyond the conformance kit: generated text, and a layer's footprint."""

from __future__ import annotations

from typing import Any

import model_factory as make
import pytest
import torch
from test_conformance import FIELD

from mhc_bench.kit import Subject
from mhc_bench.model import graft
from mhc_bench.model.footprint import layer_footprints

CASES = pytest.mark.parametrize(
    ("variant", "options"), FIELD, ids=lambda value: value if isinstance(value, str) else "".join(value)
)


@CASES
def test_generation_with_cache_gives_the_tokens_of_generation_without(
    variant: str, options: dict[str, Any]
) -> None:
    model, ids = Subject(variant, options).moved_model(), make.token_ids(rows=1, length=5)
    settings: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    cached, whole = (model.generate(ids, use_cache=use, **settings) for use in (True, False))
    assert torch.equal(cached, whole)


@CASES
def test_the_footprint_of_every_layer_can_be_counted(variant: str, options: dict[str, Any]) -> None:
    model = graft(make.backbone("llama"), variant, **options)
    found = layer_footprints(model, 1, 8, torch.bfloat16)
    assert all(layer.kept > 0 for layer in found)

"""Backbones from configuration fields: what is built, and what is refused with which hint."""

from __future__ import annotations

from typing import Any

import model_factory as make
import pytest
import torch

from mhc_bench.config.parts import part_names, read_yaml
from mhc_bench.errors import UsageError
from mhc_bench.model import build_backbone, count_parameters, graft, materialise, residual_connections
from mhc_bench.resources import configs_dir

IDS = {"vocabulary": 20, "bos_id": None, "eos_id": 1, "pad_id": 0, "max_positions": 16}


@pytest.mark.parametrize("family", make.FAMILIES)
def test_a_backbone_has_the_sizes_and_tokens_that_were_asked_for(family: str) -> None:
    model = make.backbone(family)
    assert all(each.is_meta for each in model.parameters())
    assert model.config.model_type.removesuffix("_text") == family
    assert len(model.model.layers) == 3
    assert model.get_input_embeddings().weight.shape == (make.VOCABULARY, 32)
    assert model.config.max_position_embeddings == 64
    assert (model.config.eos_token_id, model.generation_config.pad_token_id) == (1, 0)


def test_the_padding_token_learns_like_any_other() -> None:
    model = make.stock("llama")
    model(input_ids=torch.zeros(1, 5, dtype=torch.long)).logits.square().sum().backward()
    assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_soft_capped_scores_are_not_left_to_sdpa_which_would_drop_the_cap() -> None:
    ids = make.token_ids()
    model = make.stock("gemma2", attn_logit_softcapping=0.05)
    uncapped = make.stock("gemma2", attn_logit_softcapping=1e9)
    assert not torch.allclose(model(input_ids=ids).logits, uncapped(input_ids=ids).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "options", "hint"),
    [
        ("lama", {}, "did you mean 'llama'"),
        ("llama", {"hiden_size": 32}, "did you mean 'hidden_size'"),
        ("llama", {"vocab_size": 32}, "follows from the data"),
        (
            "llama",
            {"hidden_size": 30, "num_attention_heads": 4},
            "not divisible by num_attention_heads 4: the nearest is 32",
        ),
        ("qwen3", {"hidden_size": 30, "num_attention_heads": 4}, "hidden_size 30"),
        ("llama", {"hidden_size": 12, "num_attention_heads": 4}, "head_dim 3"),
        ("llama", {"hidden_size": "wide"}, "hidden_size 'wide': expected a whole number"),
        ("llama", {"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ("llama", make.DENSE | {"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ("llama", make.DENSE | {"hidden_act": 3}, "hidden_act"),
        ("llama", make.DENSE | {"hidden_act": "sillu"}, "did you mean 'silu'"),
        ("deepseek_v3", {"n_group": 3}, "n_routed_experts 4 is not divisible"),
        ("deepseek_v3", {"n_group": 4}, "n_group 4: expected at most 2"),
        ("deepseek_v3", {"topk_group": 3}, "topk_group 3"),
        ("deepseek_v3", {"num_experts_per_tok": 3}, "num_experts_per_tok 3: expected 1 to 2"),
        ("deepseek_v3", {"qk_rope_head_dim": 3}, "qk_rope_head_dim 3"),
    ],
)
def test_bad_fields_are_refused_with_a_hint(family: str, options: dict[str, Any], hint: str) -> None:
    if family == "deepseek_v3":
        options = make.DENSE | make.OWN["deepseek_v3"] | options
    with pytest.raises(UsageError) as caught:
        build_backbone(family, options, **IDS, device="meta")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_explicit_head_size_frees_the_width() -> None:
    options = make.DENSE | {"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 8}
    assert build_backbone("qwen3", options, **IDS, device="meta").config.head_dim == 8


LARGEST_TO_RUN = 3_000_000
"""Parameters: larger models than this are built on the meta device alone."""


@pytest.mark.parametrize("name", part_names("models"))
def test_every_shipped_model_is_built_and_grafted_and_run_where_it_is_small(name: str) -> None:
    part = read_yaml(configs_dir() / "models" / f"{name}.yaml")
    model = graft(build_backbone(part["family"], part["backbone"], **IDS, device="meta"), "mhc")
    assert len(residual_connections(model)) == 2 * part["backbone"]["num_hidden_layers"]
    if count_parameters(model)["total"] > LARGEST_TO_RUN:
        return
    materialise(model, 0, **part["initialisation"])
    with torch.no_grad():
        loss = model(input_ids=make.token_ids() % 20, labels=make.token_ids() % 20).loss
    assert abs(loss.item() - torch.log(torch.tensor(20.0)).item()) < 1.0


def test_the_models_of_the_laptop_suites_are_small_enough_to_run() -> None:
    for name in ("llama-d32-l2", "llama-d64-l4", "llama-d32-l24"):
        part = read_yaml(configs_dir() / "models" / f"{name}.yaml")
        model = build_backbone(part["family"], part["backbone"], **IDS, device="meta")
        assert count_parameters(model)["total"] < LARGEST_TO_RUN

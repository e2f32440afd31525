"""Tiny models of every family, with start weights that are large enough for logits to differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mhc_bench.model import build_backbone, graft, materialise, supported_families
from mhc_bench.residual import ResidualConnection

FAMILIES = supported_families()
VOCABULARY = 48
POSITIONS = 64

DENSE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
}
OWN: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 6},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3": {
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "olmo3": {"sliding_window": 6},
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
    },
}


def options_of(family: str) -> dict[str, Any]:
    """The configuration fields of a family's tiny model."""
    return DENSE | OWN.get(family, {})


def backbone(family: str = "llama", device: str = "meta", **changes: Any) -> PreTrainedModel:
    """A stock model without start weights, on the meta device unless said otherwise."""
    return stock_of(family, options_of(family) | changes, device)


def stock_of(family: str, options: dict[str, Any], device: str = "meta") -> PreTrainedModel:
    """A stock model of `VOCABULARY` words without start weights, whatever its size."""
    ids = {"bos_id": 1, "eos_id": 1, "pad_id": 0}
    return build_backbone(
        family, options, vocabulary=VOCABULARY, max_positions=POSITIONS, device=device, **ids
    )


def filled(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """`model` with start weights, ready to evaluate."""
    materialise(model, seed, rule="fan_in", scale=1.0)
    model.eval()
    return model


def stock(family: str = "llama", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A stock model with start weights."""
    return filled(backbone(family, **changes), seed)


def grafted(
    family: str = "llama", variant: str | type[ResidualConnection] = "mhc", seed: int = 0, **options: Any
) -> PreTrainedModel:
    """A grafted model whose shared weights are those of `stock` with the same seed."""
    return filled(graft(backbone(family), variant, **options), seed)


def token_ids(rows: int = 2, length: int = 11, seed: int = 0) -> Tensor:
    """Token ids [rows, length] without special tokens."""
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of VOCABULARY words: `<pad>`, `<eos>`, w2, w3, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<eos>", *(f"w{index}" for index in range(2, VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")

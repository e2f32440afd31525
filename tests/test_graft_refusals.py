"""What grafting refuses, and that it then leaves the model as it was."""

from __future__ import annotations

import model_factory as make
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
)

from mhc_bench.errors import UsageError
from mhc_bench.model import graft, supported_families

TINY = LlamaConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=20
)


def test_an_unsupported_decoder_is_refused_with_the_list_of_supported_ones() -> None:
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20))
    with pytest.raises(UsageError) as caught:
        graft(model, "baseline")
    assert "GPT2LMHeadModel" in str(caught.value)
    assert all(family in str(caught.value) for family in supported_families())


@pytest.mark.parametrize("kind", [LlamaModel, LlamaForSequenceClassification])
def test_a_model_that_is_no_causal_language_model_is_refused(kind: type) -> None:
    with pytest.raises(UsageError, match="expected a causal language model"):
        graft(kind(TINY), "baseline")


def test_somebody_s_own_layer_class_is_refused_since_it_may_compute_something_else() -> None:
    model = LlamaForCausalLM(TINY)
    model.model.layers[1].__class__ = type("Mine", (type(model.model.layers[1]),), {})
    with pytest.raises(UsageError, match="Mine"):
        graft(model, "baseline")


def test_a_second_graft_is_refused() -> None:
    model = graft(LlamaForCausalLM(TINY), "hc")
    with pytest.raises(UsageError, match="already"):
        graft(model, "baseline")


@pytest.mark.parametrize(
    ("variant", "options", "hint"),
    [
        ("mhcc", {}, "did you mean 'mhc'"),
        ("mhc", {"stream": 4}, "did you mean 'streams'"),
        ("mhc", {"streams": 0}, "streams 0"),
        ("json:JSONDecoder", {}, "json:JSONDecoder"),
    ],
)
def test_a_bad_variant_or_option_leaves_the_model_stock(
    variant: str, options: dict[str, int], hint: str
) -> None:
    model = LlamaForCausalLM(TINY).eval()
    ids = make.token_ids() % 20
    before = model(input_ids=ids).logits
    with pytest.raises(UsageError, match=hint):
        graft(model, variant, **options)
    assert type(model) is LlamaForCausalLM
    assert torch.equal(model(input_ids=ids).logits, before)
    graft(model, "baseline")


def test_a_third_party_connection_is_grafted_by_module_and_class() -> None:
    model = graft(LlamaForCausalLM(TINY), "test_graft_streams:CopiedStreams", streams=2)
    assert model.graft_variant == "test_graft_streams:CopiedStreams"
    assert model.graft_options == {"streams": 2}


def test_options_left_out_are_kept_with_their_defaults() -> None:
    assert graft(LlamaForCausalLM(TINY), "mhc").graft_options["streams"] == 4

"""With the baseline grafted on, every family computes exactly what the stock model computes."""

from __future__ import annotations

import copy

import model_factory as make
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mhc_bench import graft
from mhc_bench.model.recompute import recompute_layers


def loss_and_gradients(model: torch.nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ids = make.token_ids()
    logits = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return logits, {name: each.grad for name, each in model.named_parameters()}


@pytest.mark.parametrize("family", make.FAMILIES)
def test_logits_and_gradients_equal_the_stock_model_bit_for_bit(family: str) -> None:
    stock_logits, stock_gradients = loss_and_gradients(make.stock(family))
    logits, gradients = loss_and_gradients(make.grafted(family, "baseline"))
    assert torch.equal(logits, stock_logits)
    assert gradients.keys() == stock_gradients.keys()
    assert all(torch.equal(gradients[name], stock_gradients[name]) for name in stock_gradients)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_greedy_generation_with_kv_cache_equals_the_stock_model(family: str) -> None:
    settings = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "use_cache": True}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    ids = make.token_ids()
    expected = make.stock(family).generate(ids, **settings)
    found = make.grafted(family, "baseline").generate(ids, **settings)
    assert torch.equal(found.sequences, expected.sequences)
    assert all(torch.equal(a, b) for a, b in zip(found.logits, expected.logits, strict=True))
    assert found.past_key_values.get_seq_length() == ids.shape[1] + 11, "the cache was not used"


@pytest.mark.parametrize("family", make.FAMILIES)
def test_recorded_attentions_and_hidden_states_equal_the_stock_model(family: str) -> None:
    ids = make.token_ids()
    models = make.stock(family), make.grafted(family, "baseline")
    for model in models:
        model.set_attn_implementation("eager")
    expected, found = (m(input_ids=ids, output_hidden_states=True, output_attentions=True) for m in models)
    assert len(found.hidden_states) == 4
    assert len(found.attentions) == 3
    assert all(torch.equal(a, b) for a, b in zip(found.hidden_states, expected.hidden_states, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found.attentions, expected.attentions, strict=True))


def test_a_user_s_own_model_keeps_its_weights_and_logits() -> None:
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=40
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    reference = copy.deepcopy(model)
    ids = make.token_ids() % 40
    assert graft(model, "baseline") is model
    assert isinstance(model, LlamaForCausalLM)
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in reference.named_parameters()
    ]
    assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)


def test_gradient_checkpointing_recomputes_the_grafted_layer_and_changes_no_gradient() -> None:
    plain, checkpointed = make.grafted("llama", "mhc").train(), make.grafted("llama", "mhc").train()
    recompute_layers(checkpointed)
    calls = []
    checkpointed.model.layers[1].mlp.register_forward_hook(lambda *_: calls.append(1))
    expected, found = loss_and_gradients(plain)[1], loss_and_gradients(checkpointed)[1]
    assert len(calls) == 2, "expected a forward pass and its recomputation"
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_grafted_model_can_be_copied() -> None:
    model = make.grafted("llama", "hc")
    ids = make.token_ids()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(input_ids=ids).logits, model(input_ids=ids).logits)
    assert twin.model.layers[0].attention_residual is not model.model.layers[0].attention_residual


def test_other_kernels_of_transformers_can_still_be_chosen() -> None:
    model = make.grafted("deepseek_v3", "mhc")
    ids = make.token_ids()
    expected = model(input_ids=ids).logits
    model.set_attn_implementation("eager")
    model.set_experts_implementation("batched_mm")
    assert (model.config._attn_implementation, model.config._experts_implementation) == (
        "eager",
        "batched_mm",
    )
    assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-5)

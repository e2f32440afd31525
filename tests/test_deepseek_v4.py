"""`mhc-v4` is DeepSeek-V4's operator: weights both ways, and a whole small DeepSeek-V4 with equal logits.

Its attention (compressed, with sinks) and experts belong to no supported backbone, so the sublayers here are
the V4 model's own modules; everything between them, and the head, is ours.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_factory import grafted, token_ids
from torch import Tensor

from mhc_bench.config.parts import read_part
from mhc_bench.errors import UsageError
from mhc_bench.model import residual_connections
from mhc_bench.residual import build
from mhc_bench.residual.deepseek_v4 import load_deepseek_v4, to_deepseek_v4

v4 = pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")
WIDTH, LAYERS, STREAMS = 16, 3, 4
OPTIONS = read_part("variant", "variants", "mhc-v4")["options"]


def model_of(seed: int) -> Any:
    """A DeepSeek-V4 with each kind of attention and of experts, its connections away from their start."""
    config = v4.DeepseekV4Config(
        vocab_size=50,
        hidden_size=WIDTH,
        moe_intermediate_size=8,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        head_dim=8,
        q_lora_rank=8,
        partial_rotary_factor=0.5,
        num_experts_per_tok=2,
        n_routed_experts=4,
        layer_types=["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
        compress_rates={"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
        mlp_layer_types=["hash_moe", "moe", "moe"],
        sliding_window=4,
        o_groups=2,
        o_lora_rank=4,
        index_n_heads=2,
        index_head_dim=4,
        index_topk=2,
        hc_mult=STREAMS,
        max_position_embeddings=64,
    )
    torch.manual_seed(seed)
    model = v4.DeepseekV4ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_hc." in name or "hc_head" in name:
                parameter += 0.3 * torch.randn(parameter.shape)
    return model


def connections() -> list[Any]:
    depth = 2 * LAYERS
    return [build("mhc", width=WIDTH, depth=depth, index=index, **OPTIONS) for index in range(depth)]


def with_our_connections(model: Any, own: list[Any], ids: Tensor) -> Tensor:
    """Logits of the model with the layers' additions, the expansion and the head made by `own`."""
    stack = model.model
    context: dict[str, Any] = {}

    def remember(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        context.setdefault("kwargs", kwargs)

    handle = stack.layers[0].self_attn.register_forward_pre_hook(remember, with_kwargs=True)
    with torch.no_grad():
        model(ids, use_cache=False)  # for masks and positions alone
    handle.remove()
    hidden = stack.embed_tokens(ids)
    stream = own[0].expand(hidden)
    for k, layer in enumerate(stack.layers):
        attention, mlp = own[2 * k], own[2 * k + 1]
        read, carry = attention.read(stream)
        update, _ = layer.self_attn(layer.input_layernorm(read), **context["kwargs"])
        stream, read, carry = attention.write_read(stream, update, carry, mlp)
        update = layer.mlp(layer.post_attention_layernorm(read), input_ids=ids)
        stream = mlp.write(stream, update, carry)
    return model.lm_head(stack.norm(own[-1].collapse(stream)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of(1)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(5))


def test_logits_and_gradients_of_a_whole_model_are_equal_with_its_weights(model: Any, ids: Tensor) -> None:
    own = connections()
    load_deepseek_v4(own, model.state_dict())
    mine = with_our_connections(model, own, ids)
    theirs = model(ids, use_cache=False).logits
    assert theirs.std() > 0.05
    torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-6)
    weight = torch.randn(mine.shape, generator=torch.Generator().manual_seed(6))
    for parameter in model.parameters():
        parameter.grad = None
    (theirs * weight).sum().backward()
    (mine * weight).sum().backward()
    for k, layer in enumerate(model.model.layers):
        for hc, each in ((layer.attn_hc, own[2 * k]), (layer.ffn_hc, own[2 * k + 1])):
            ours = torch.cat([each.alpha_pre.grad, each.alpha_post.grad, each.alpha_res.grad])
            torch.testing.assert_close(ours, hc.scale.grad, rtol=2e-3, atol=2e-4)
            torch.testing.assert_close(each.phi_pre.grad, hc.fn.grad[:STREAMS], rtol=2e-3, atol=2e-4)
    torch.testing.assert_close(own[-1].head_phi.grad, model.model.hc_head.hc_fn.grad, rtol=2e-3, atol=2e-4)


def test_another_models_connections_give_other_logits(model: Any, ids: Tensor) -> None:
    own = connections()
    load_deepseek_v4(own, model_of(2).state_dict())
    mine = with_our_connections(model, own, ids)
    assert (mine - model(ids, use_cache=False).logits).abs().max() > 1e-2


def test_our_weights_load_into_its_model_and_give_our_logits(ids: Tensor) -> None:
    own, other = connections(), model_of(3)
    with torch.no_grad():
        for each in own:
            for parameter in each.parameters():
                parameter += 0.2 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(each.index)
                )
    missing, unexpected = other.load_state_dict(to_deepseek_v4(own), strict=False)
    assert not unexpected and not [name for name in missing if "hc" in name]
    mine = with_our_connections(other, own, ids)
    torch.testing.assert_close(mine, other(ids, use_cache=False).logits, rtol=2e-5, atol=2e-6)


def test_there_and_back_is_the_same_to_the_bit(model: Any) -> None:
    own, state = connections(), model.state_dict()
    load_deepseek_v4(own, state)
    back = to_deepseek_v4(own)
    assert set(back) == {name for name in state if "_hc." in name or "hc_head" in name}
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_a_grafted_model_hands_its_connections_over() -> None:
    """The same on a backbone of the suite: what is trained here is what DeepSeek-V4's layout holds."""
    ours = grafted("llama", "mhc", **OPTIONS)
    state = to_deepseek_v4(list(residual_connections(ours).values()))
    other = grafted("llama", "mhc", **OPTIONS)
    own = list(residual_connections(other).values())
    with torch.no_grad():
        for each in own:
            for parameter in each.parameters():
                parameter.zero_()
    batch = token_ids()
    with torch.no_grad():
        expected = ours(batch).logits
        assert not torch.allclose(other(batch).logits, expected)
        load_deepseek_v4(own, state)
        assert torch.equal(other(batch).logits, expected)


def test_what_does_not_fit_is_refused_and_nothing_is_written(model: Any) -> None:
    state = model.state_dict()
    own = connections()
    before = to_deepseek_v4(own)
    with pytest.raises(UsageError, match=r"no model.layers.2.ffn_hc.scale: expected"):
        load_deepseek_v4(own, {name: each for name, each in state.items() if "2.ffn_hc.scale" not in name})
    wide = state | {"model.hc_head.hc_fn": torch.zeros(4, 99)}
    with pytest.raises(UsageError, match=r"hc_fn is \[4, 99\]: expected \[4, 64\]"):
        load_deepseek_v4(own, wide)
    assert all(torch.equal(each, before[name]) for name, each in to_deepseek_v4(own).items())
    with pytest.raises(
        UsageError,
        match=r"^DeepSeek-V4.s weights: expected attention and MLP of each layer, and reduction: learned$",
    ):
        to_deepseek_v4([build("mhc", width=8, depth=2, index=index) for index in range(2)])
    with pytest.raises(UsageError, match="attention and MLP of each layer"):
        odd = [build("mhc", width=8, depth=3, index=index, reduction="learned") for index in range(3)]
        to_deepseek_v4(odd)
    with pytest.raises(
        UsageError,
        match=r"^DeepSeek-V4.s weights: expected the connections of mhc-v4, all of a model.s sublayers$",
    ):
        to_deepseek_v4([build("hc", width=8, depth=2, index=index) for index in range(2)])

"""Start weights: from (seed, name) alone, the same for every variant and layout, of the stated size."""

from __future__ import annotations

import zlib

import model_factory as make
import pytest
import torch

from mhc_bench.errors import UsageError
from mhc_bench.model import graft, materialise, residual_connections, shared_weight_digest, weight_digest
from mhc_bench.model.initialisation import name_key, normal

VARIANTS = ["baseline", "hc", "mhc"]


@pytest.mark.parametrize("family", make.FAMILIES)
def test_shared_weights_are_the_same_for_every_variant_and_for_the_stock_model(family: str) -> None:
    digests = {shared_weight_digest(make.grafted(family, variant)) for variant in VARIANTS}
    assert digests == {shared_weight_digest(make.stock(family))}


@pytest.mark.parametrize("family", make.FAMILIES)
def test_a_model_built_on_meta_equals_one_built_directly(family: str) -> None:
    """Rotary tables, embedding scales and router biases too, and what the model computes."""
    direct, meta = make.backbone(family, device="cpu"), make.backbone(family)
    expected_buffers = {name: each.clone() for name, each in direct.named_buffers()}
    for model in (direct, meta):
        materialise(model, 3)
    assert {name for name, _ in meta.named_buffers()} == expected_buffers.keys()
    for name, buffer in meta.named_buffers():
        assert torch.equal(buffer, expected_buffers[name]), name
    assert weight_digest(direct) == weight_digest(meta)
    ids = make.token_ids()
    assert torch.equal(direct.eval()(input_ids=ids).logits, meta.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(variant: str) -> None:
    assert weight_digest(make.grafted("llama", variant, 5)) == weight_digest(
        make.grafted("llama", variant, 5)
    )
    assert weight_digest(make.grafted("llama", variant, 5)) != weight_digest(
        make.grafted("llama", variant, 6)
    )


def test_weights_do_not_depend_on_the_global_generator_nor_advance_it() -> None:
    torch.manual_seed(1)
    first = weight_digest(make.grafted("deepseek_v3"))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert weight_digest(make.grafted("deepseek_v3")) == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_parameter_does_not_depend_on_the_others_around_it() -> None:
    shallow, deep = make.backbone(num_hidden_layers=2), make.backbone(num_hidden_layers=3)
    for model in (shallow, deep):
        materialise(model, 0, depth_scaled=False)
    theirs = dict(deep.named_parameters())
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in shallow.named_parameters())


@pytest.mark.parametrize("family", make.FAMILIES)
def test_norms_start_neutral_and_biases_at_zero(family: str) -> None:
    model = make.stock(family)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            expected = 0.0 if name.endswith("bias") or family.startswith("gemma") else 1.0
            assert torch.equal(parameter, torch.full_like(parameter, expected)), name
    norm = getattr(model.model.layers[0], "input_layernorm", model.model.norm)
    unit = torch.tensor([1.0, -1.0] * 16)
    assert torch.allclose(norm(unit[None]), unit[None], atol=1e-4)


def test_tied_embeddings_are_one_tensor_after_leaving_meta() -> None:
    model = make.stock("gemma")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert make.stock("llama").lm_head.weight is not make.stock("llama").model.embed_tokens.weight


@pytest.mark.parametrize(("rule", "scale"), [("normal", 0.02), ("fan_in", 0.55)])
def test_spreads_follow_the_rule(rule: str, scale: float) -> None:
    model = make.backbone("deepseek_v3", hidden_size=64, moe_intermediate_size=48)
    materialise(model, 0, rule=rule, scale=scale, depth_scaled=True)
    parameters = dict(model.named_parameters())

    def expected(fan_in: int, sublayers: int = 1) -> float:
        return (scale if rule == "normal" else scale / fan_in**0.5) / sublayers**0.5

    layer = "model.layers.2"
    for name, std in {
        "model.embed_tokens.weight": expected(64),
        "lm_head.weight": expected(64),
        f"{layer}.self_attn.q_proj.weight": expected(64),
        f"{layer}.self_attn.o_proj.weight": expected(32, sublayers=6),
        f"{layer}.mlp.experts.gate_up_proj": expected(64),
        f"{layer}.mlp.experts.down_proj": expected(48, sublayers=6),
        f"{layer}.mlp.shared_experts.down_proj.weight": expected(48, sublayers=6),
        f"{layer}.mlp.gate.weight": expected(64),
        "model.layers.0.mlp.down_proj.weight": expected(40, sublayers=6),
    }.items():
        found = parameters[name]
        assert found.std().item() == pytest.approx(std, rel=4 / found.numel() ** 0.5), name
        assert abs(found.mean().item()) < 5 * std / found.numel() ** 0.5, name


def test_names_whose_short_checksums_collide_have_different_streams() -> None:
    first, second = "plumless", "buckeroo"
    assert zlib.crc32(first.encode()) == zlib.crc32(second.encode())
    assert name_key(0, first) != name_key(0, second)
    assert name_key(1, "1:w") != name_key(11, ":w")


def test_drawn_values_are_pinned() -> None:
    """Records of other machines are compared by these bits: a change here changes every published digest."""
    found = normal(0, "model.embed_tokens.weight", torch.Size([2, 2]), 1.0)
    pinned = [0.1850683093070984, -0.6573145985603333, 0.5486811399459839, 0.7388055920600891]
    assert found.flatten().tolist() == pinned


def test_connections_start_where_they_say() -> None:
    model = make.grafted("llama", "hc", streams=3)
    for connection in residual_connections(model).values():
        assert torch.equal(connection.static_res, torch.eye(3))
        assert torch.equal(connection.static_pre, torch.eye(3)[connection.index % 3])


def test_filling_again_in_place_changes_nothing_but_what_was_changed() -> None:
    model = make.grafted("gemma3")
    before = weight_digest(model)
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    assert weight_digest(model) != before
    materialise(model, 0, rule="fan_in", scale=1.0)
    assert weight_digest(model) == before


def test_the_shared_digest_sees_shared_weights_alone() -> None:
    model = make.grafted("llama", "mhc")
    shared, whole = shared_weight_digest(model), weight_digest(model)
    with torch.no_grad():
        model.model.layers[1].mlp_residual.alpha_pre.add_(1)
    assert shared_weight_digest(model) == shared
    assert weight_digest(model) != whole
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0].add_(1e-6)
    assert shared_weight_digest(model) != shared


def test_the_digest_covers_the_router_s_correction_bias() -> None:
    model = make.grafted("deepseek_v3", "baseline")
    before = weight_digest(model)
    model.model.layers[1].mlp.gate.e_score_correction_bias[0] += 0.5
    assert weight_digest(model) != before


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'fan_in'"):
        materialise(make.backbone(), 0, rule="fanin")  # type: ignore[arg-type]


def test_grafting_a_real_model_starts_its_connections_too() -> None:
    model = graft(make.stock("llama"), "mhc")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.all(model.model.layers[0].mlp_residual.alpha_res == 0.01)

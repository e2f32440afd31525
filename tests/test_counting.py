"""Counts of parameters and operations, against the paper's table, torch's counter and sums by hand."""

from __future__ import annotations

from typing import Any

import model_factory as make
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mhc_bench.kit import toys
from mhc_bench.model import build_backbone, count_parameters, flops_per_token, graft, parameter_groups
from mhc_bench.model.counting import mean_context
from mhc_bench.ops.choice import operations_named
from mhc_bench.residual import ResidualConnection, variant_names


def paper(layers: int, width: int, expert: int, heads: int, experts: int) -> dict[str, Any]:
    """A DeepSeek-V3 backbone of arXiv 2512.24880, table 5."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": 8 * expert,
        "moe_intermediate_size": expert,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "n_routed_experts": experts,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    }


@pytest.mark.parametrize(
    ("shape", "total", "active", "vocabulary", "residual"),
    [
        ((12, 1280, 896, 16, 64), "2.97B", "612M", "331M", 24 * (96 * 1280 + 27)),
        ((18, 1920, 1280, 24, 64), "9.18B", "1.66B", "496M", 36 * (96 * 1920 + 27)),
        ((30, 2560, 1536, 32, 72), "27.05B", "4.14B", "662M", 60 * (96 * 2560 + 27)),
    ],
)
def test_the_paper_s_models_with_mhc_have_the_paper_s_counts(
    shape: tuple[int, ...], total: str, active: str, vocabulary: str, residual: int
) -> None:
    ids = {"bos_id": 0, "eos_id": 1, "pad_id": None}
    model = build_backbone(
        "deepseek_v3", paper(*shape), vocabulary=129_280, max_positions=4096, device="meta", **ids
    )
    counts = count_parameters(graft(model, "mhc", streams=4))
    assert f"{counts['total'] / 1e9:.2f}B" == total
    found = counts["active"]
    assert (f"{found / 1e6:.0f}M" if active.endswith("M") else f"{found / 1e9:.2f}B") == active
    assert f"{counts['vocabulary'] / 1e6:.0f}M" == vocabulary
    assert counts["residual"] == residual
    assert flops_per_token(model, 4096) > 6 * (counts["active"] - counts["residual"])


def test_a_dense_model_is_counted_as_by_hand() -> None:
    counts = count_parameters(make.backbone("llama"))
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 40 + 2 * 32
    assert counts["total"] == 2 * 48 * 32 + 3 * layer + 32
    assert counts["active"] == counts["total"] - 48 * 32
    assert (counts["vocabulary"], counts["residual"]) == (2 * 48 * 32, 0)


def test_a_tied_matrix_counts_once_and_is_active() -> None:
    counts = count_parameters(make.backbone("gemma"))
    assert counts["active"] == counts["total"]
    assert counts["vocabulary"] == 48 * 32


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "olmo2"])
def test_operations_of_a_step_equal_torch_s_count(family: str) -> None:
    model = make.stock(family)
    model.set_attn_implementation("eager")
    length = 16
    with FlopCounterMode(display=False) as counter:
        model(input_ids=make.token_ids(1, length), use_cache=False).logits.sum().backward()
    # torch counts the products of the whole square of scores; a causal mask needs (length + 1) / 2 of length
    per_position = 6 * 3 * 4 * (8 + 8)  # 6 x layers x heads x (key + value size)
    masked_away = per_position * (length - (length + 1) / 2)
    # some versions of transformers make the angles of the positions, which have no parameter, with a product
    angles = sum(
        sum(each.values())
        for name, each in counter.get_flop_counts().items()
        if name.rpartition(".")[2] == "rotary_emb"
    )
    assert (counter.get_total_flops() - angles) / length == flops_per_token(model, length) + masked_away


WITHOUT_PARAMETER = {
    "frac": 2 * 2 * 4 * 4 * 3,  # the mixing of fractions
    "hc-components": 2 * 4 * 4 * toys.WIDTH,  # rows of zeros, for the map that is fixed
    "kromhc": 2 * 16,
    "mhc-lite": 2 * 24 * 16,
    "mhc-spectral": 2 * (3 * 3 * 4 + 3 * 4 * 4),
}
"""Operations per token of products with no parameter in them, n = 4: most of them make H_res."""


def matrix_operations(connection: ResidualConnection) -> int:
    """Per token, forward, as declared."""
    vectors = connection.vectors_per_token()
    matrices = {own: each for own, each in connection.named_parameters() if each.ndim > 1}
    assert vectors.keys() <= dict(connection.named_parameters()).keys()
    return sum(2 * each.numel() * vectors.get(own, 1) for own, each in matrices.items())


@pytest.mark.parametrize("name", variant_names())
def test_operations_of_a_connection_s_matrices_equal_torch_s_count(name: str) -> None:
    tokens, connection = 10, toys.connection(name)
    connection.use_operations(operations_named("reference"))
    stream = connection.expand(toys.hidden(batch=1, time=tokens))
    with FlopCounterMode(display=False) as counter:
        read, carry = connection.read(stream)
    reading = counter.get_total_flops() / tokens
    with FlopCounterMode(display=False) as counter:
        connection.write(stream, read, carry)
    writing = counter.get_total_flops() / tokens
    reading -= WITHOUT_PARAMETER.get(name, 0)
    if connection.maps(stream) is not None and name not in ("baseline", "ddl"):
        n, width = stream.shape[-2:]
        reading -= 2 * n * width
        writing -= 0 if name == "mhc-identity" else 2 * n * n * width
    assert reading + writing == matrix_operations(connection)


@pytest.mark.parametrize(("variant", "vectors"), [("hc", 4), ("mhc", 1), ("baseline", 1)])
def test_a_matrix_counts_once_for_each_stream_that_it_meets_and_by_rule_1_once(
    variant: str, vectors: int
) -> None:
    model, plain = make.grafted("llama", variant), make.backbone("llama")
    added = sum(
        each.numel()
        for name, each in model.named_parameters()
        if "residual" in name and each.ndim > 1 and "static" not in name
    )
    static = sum(each.numel() for name, each in model.named_parameters() if "static_res" in name)
    base = flops_per_token(plain, 8)
    assert flops_per_token(model, 8) == base + 6 * added * vectors
    assert flops_per_token(model, 8, rule=1) == base + 6 * (added + static)


@pytest.mark.parametrize(("length", "window"), [(16, None), (16, 6), (16, 1), (5, 9)])
def test_the_mean_context_is_the_mean_over_positions(length: int, window: int | None) -> None:
    seen = [min(position, window or length) for position in range(1, length + 1)]
    assert mean_context(length, window) == pytest.approx(sum(seen) / length)


def test_idle_experts_cost_nothing() -> None:
    few, many = (make.backbone("deepseek_v3", n_routed_experts=experts) for experts in (4, 8))
    routers = 2 * 32 * 4  # two expert layers, four more rows in each router
    assert count_parameters(many)["active"] - count_parameters(few)["active"] == routers
    assert flops_per_token(many, 8) - flops_per_token(few, 8) == 6 * routers
    more = make.backbone("deepseek_v3", num_experts_per_tok=1)
    one_expert = 2 * 3 * 32 * 16
    assert count_parameters(few)["active"] - count_parameters(more)["active"] == one_expert


@pytest.mark.parametrize("family", make.FAMILIES)
@pytest.mark.parametrize("variant", ["baseline", "mhc"])
def test_matrices_decay_and_embeddings_norms_and_biases_do_not(family: str, variant: str) -> None:
    model = make.grafted(family, variant)
    groups = {group["name"]: group for group in parameter_groups(model, 0.1)}
    names = {id(each): name for name, each in model.named_parameters()}
    decayed = {names[id(each)] for each in groups["decayed"]["params"]}
    plain = {names[id(each)] for each in groups["plain"]["params"]} if "plain" in groups else set()
    assert decayed | plain == set(names.values())
    assert not decayed & plain
    assert groups["decayed"]["weight_decay"] == 0.1
    assert groups["plain"]["weight_decay"] == 0.0
    assert "model.embed_tokens.weight" in plain
    assert ("lm_head.weight" in decayed) == (not family.startswith("gemma"))
    for name in decayed:
        assert (
            "phi" in name
            if "residual" in name
            else name.endswith(("_proj.weight", "_proj", "_mqa.weight", "gate.weight", "lm_head.weight"))
        ), name
    assert all("norm" in name or "bias" in name or "alpha" in name or "embed" in name for name in plain)
    torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-3)

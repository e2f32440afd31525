"""Every variant in a whole model: the KV cache, saving, recompute, compiled layers' meta pass, sharding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_factory as make
import pytest
import torch
from forked import on_ranks
from torch.distributed.device_mesh import init_device_mesh

from mhc_bench.model import graft, materialise
from mhc_bench.model.footprint import layer_footprints
from mhc_bench.model.layers import parameter_owners
from mhc_bench.model.recompute import recompute_blocks
from mhc_bench.model.saving import load_model, save_model
from mhc_bench.residual import variant_names
from mhc_bench.training.sharding import shard

CORE = {"baseline", "hc", "mhc"}
"""Tested in the same respects, and on every family, in files of their own."""
FIELD = pytest.mark.parametrize(
    ("variant", "options"),
    [
        *((name, {}) for name in variant_names() if name not in CORE),
        ("attnres", {"blocks": 2}),
        ("mhc", {"reduction": "learned", "additive_epsilon": 1e-6, "initialisation": "deepseek_v4"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(map(str, value.values())),
)


def changed(variant: str, options: dict[str, Any]) -> Any:
    """A grafted model whose connections have left their start."""
    model = make.grafted("llama", variant, **options)
    with torch.no_grad():
        for number, (connection, own) in enumerate(parameter_owners(model).values()):
            parameter = connection.get_parameter(own)
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(0.1 * noise)
    return model


@FIELD
def test_generation_with_cache_and_the_saved_model_equal_the_model(
    variant: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model, ids = changed(variant, options), make.token_ids(rows=1, length=5)
    settings: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    cached, whole = (model.generate(ids, use_cache=use, **settings) for use in (True, False))
    assert torch.equal(cached, whole)
    save_model(model, make.tokenizer(), tmp_path / "saved")
    loaded, _ = load_model(tmp_path / "saved")
    assert torch.equal(loaded.eval()(input_ids=ids).logits, model(input_ids=ids).logits)


@FIELD
def test_dropping_and_recomputing_change_no_gradient(variant: str, options: dict[str, Any]) -> None:
    def gradients(how: str) -> dict[str, torch.Tensor]:
        model = changed(variant, options).train()
        if how == "block":
            recompute_blocks(model, 4)
        if how == "layer":
            model.activation_checkpointing_enable()
        model(input_ids=make.token_ids(), use_cache=False).logits.square().mean().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients("none")
    for how in ("block", "layer"):
        again = gradients(how)
        assert plain.keys() == again.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7, msg=f"{how} {name}")


@FIELD
def test_the_footprint_of_every_layer_can_be_counted(variant: str, options: dict[str, Any]) -> None:
    model = graft(make.backbone("llama"), variant, **options)
    found = layer_footprints(model, 1, 8, torch.bfloat16)
    assert all(layer.kept > 0 for layer in found)


def sharded_losses(rank: int) -> dict[str, float]:
    """Loss and gradient norm of each variant over two ranks."""
    torch.distributed.init_process_group("gloo")
    mesh, found = init_device_mesh("cpu", (2,)), {}
    for case in FIELD.args[1]:
        variant, options = case
        model: Any = graft(make.backbone("llama"), variant, **options)
        shard(model, mesh, 2, "fp32")
        materialise(model, 0, rule="fan_in", scale=1.0)
        loss = model(input_ids=make.token_ids(), use_cache=False).logits.square().mean()
        loss.backward()
        norms = [p.grad.full_tensor().norm() for p in model.parameters() if p.grad is not None]
        found[f"{variant} {options}"] = (loss.item(), torch.stack(norms).norm().item())
    torch.distributed.destroy_process_group()
    return found  # type: ignore[return-value]


def test_two_ranks_compute_what_one_device_does() -> None:
    results = on_ranks(sharded_losses)
    assert [code for code, _ in results] == [0, 0]
    for variant, options in FIELD.args[1]:
        model: Any = make.grafted("llama", variant, **options).train()
        loss = model(input_ids=make.token_ids(), use_cache=False).logits.square().mean()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        for _, found in results:
            assert found[f"{variant} {options}"] == pytest.approx((loss.item(), norm.item()), rel=1e-4), (
                variant
            )

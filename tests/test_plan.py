"""The plan of a suite: its memory against torch's own tracker, its traffic and times against sums by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_factory as make
import pytest
import torch
import torch.nn.functional as F
from forked import in_child

from mhc_bench.config import HardwareConfig, RunConfig, TrainingConfig, load_suite, run_configs
from mhc_bench.model import build_backbone, count_parameters, decoder_layers, graft, supported_families
from mhc_bench.model.footprint import _Attention, balance_experts, layer_footprints
from mhc_bench.model.recompute import recompute_layers
from mhc_bench.suite.memory import Units, communication, device_memory
from mhc_bench.suite.plan import plan, to_json
from mhc_bench.suite.preflight import count

EXPERTS = {
    "num_key_value_heads": 8,
    "q_lora_rank": None,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 128,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}


def small(family: str, variant: str, length: int, vocabulary: int, device: str) -> Any:
    options: dict[str, Any] = {
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "intermediate_size": 1024,
        "tie_word_embeddings": False,
    }
    ids = {"bos_id": None, "eos_id": None, "pad_id": None}
    if family == "deepseek_v3":
        options |= EXPERTS
    model = build_backbone(family, options, vocabulary=vocabulary, max_positions=length, device=device, **ids)
    return graft(model, variant)


def tracked_peak(
    family: str, variant: str, length: int, vocabulary: int, world: int, checkpointed: bool
) -> int:
    """Peak bytes of the second training step on one of `world` ranks, by torch's FSDPMemTracker.

    The residual connections are in their layer's unit: the tracker knows `forward` alone.
    """
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> Any:
        return _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]

    F.scaled_dot_product_attention = attention
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    plan: dict[str, Any] = {"mesh": init_device_mesh("cpu", (world,)), "mp_policy": policy}
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = small(family, variant, length, vocabulary, "cpu")
        balance_experts(model)
        model.train()
        if checkpointed:
            recompute_layers(model)
        for _, layer in decoder_layers(model):
            fully_shard(layer, **plan)
        fully_shard(model, **plan)
        # foreach and fused would count temporaries of the global size
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False, fused=False)
        ids = torch.zeros(1, length + 1, dtype=torch.long)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs((ids,))
        with tracker:
            for step in range(2):
                logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
                loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
                del logits
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                if step == 0:
                    tracker.reset_mod_stats()
        parts = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return next(value for part, value in parts.items() if str(part) == "Total")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "variant", "length", "vocabulary", "world", "checkpointed"),
    [
        ("llama", "baseline", 512, 4096, 8, False),
        ("deepseek_v3", "mhc", 256, 512, 8, False),
        ("llama", "baseline", 64, 256, 64, False),
        ("llama", "mhc", 512, 512, 4, True),
    ],
    ids=["logits", "experts", "weights", "checkpointed"],
)
def test_planned_memory_is_within_a_tenth_of_torch_s_tracker(
    family: str, variant: str, length: int, vocabulary: int, world: int, checkpointed: bool
) -> None:
    code, tracked = in_child(lambda: tracked_peak(family, variant, length, vocabulary, world, checkpointed))
    assert code == 0
    run = step_of(length, world)
    model = small(family, variant, length, vocabulary, "meta")
    units = Units.of(model, world)
    layers = layer_footprints(model, 1, length, torch.bfloat16)
    planned = device_memory(run, units, layers, length * vocabulary)
    peak = planned.peak_checkpointed if checkpointed else planned.peak
    assert peak == pytest.approx(tracked, rel=0.1)


def step_of(length: int, world: int, parts: int = 1, sharding: str = "fsdp") -> RunConfig:
    return RunConfig(
        training=TrainingConfig(
            sequence_length=length, batch_tokens=length * world * parts, steps=1, precision="bf16"
        ),
        hardware=HardwareConfig(devices=world, sharding=sharding, rows_per_device=1),  # type: ignore[arg-type]
    )


def test_layers_are_gathered_twice_and_the_rest_once_and_gradients_reduced_in_fp32() -> None:
    model = small("llama", "baseline", 32, 128, "meta")
    layers, root = 2 * (4 * 256 * 256 + 3 * 256 * 1024 + 2 * 256), 2 * 128 * 256 + 256
    for parts in (1, 3):
        moved = communication(step_of(32, 4, parts), Units.of(model, 4))
        assert moved.all_gather == parts * 2 * (2 * layers + root) * 3 // 4
        assert moved.reduce_scatter == parts * 4 * (layers + root) * 3 // 4


def test_replicas_gather_within_a_node_and_add_up_their_gradients_across_once() -> None:
    model = small("llama", "baseline", 32, 128, "meta")
    layers, root = 2 * (4 * 256 * 256 + 3 * 256 * 1024 + 2 * 256), 2 * 128 * 256 + 256
    run = step_of(32, 8, 3, "hsdp")
    run.hardware.devices, run.hardware.nodes = 4, 2
    moved = communication(run, Units.of(model, 4))
    assert moved.all_gather == 3 * 2 * (2 * layers + root) * 3 // 4
    assert moved.reduce_scatter == 3 * 4 * (layers + root) * 3 // 4
    # a ring of two: each passes on half of its quarter of the fp32 gradients, twice
    assert moved.all_reduce == moved.between_nodes == 4 * (layers + root) // 4
    assert moved.total == moved.all_gather + moved.reduce_scatter + moved.all_reduce


def test_shards_over_two_nodes_come_half_from_the_other_one() -> None:
    model = small("llama", "baseline", 32, 128, "meta")
    run = step_of(32, 8)
    run.hardware.devices, run.hardware.nodes = 4, 2
    moved = communication(run, Units.of(model, 8))
    # of eight shards a device has one, three are in its node and four are not
    assert moved.between_nodes == pytest.approx((moved.all_gather + moved.reduce_scatter) * 4 / 7, abs=2)
    assert moved.all_reduce == 0


def test_each_node_of_a_hybrid_plan_holds_a_whole_state() -> None:
    model = small("llama", "mhc", 32, 128, "meta")
    run = step_of(32, 8, 1, "hsdp")
    run.hardware.devices, run.hardware.nodes = 2, 4
    layers = layer_footprints(model, 1, 32, torch.bfloat16)
    memory = device_memory(run, Units.of(model, 2), layers, 32 * 128)
    state = memory.parameters + memory.gradients + memory.optimizer
    assert state == pytest.approx(16 * count_parameters(model)["total"] / 2, rel=0.001)


def test_rows_that_ranks_cannot_share_equally_are_filled_up() -> None:
    model = small("deepseek_v3", "mhc", 32, 128, "meta")
    counts, even, uneven = count_parameters(model), Units.of(model, 1), Units.of(model, 12)
    assert (even.total, even.residual) == (counts["total"], counts["residual"])
    experts, shared_rows = 3 * 128 * 256, 12
    assert uneven.layers[1] - even.layers[1] >= (24 - 16) * experts
    # phi of 4, 4 and 16 rows of 4 * 256, nine biases and gates
    phi, small_ones = (12 + 12 + 24) * 1024, 2 * 12 + 24 + 3 * shared_rows
    assert uneven.residual == 4 * (phi + small_ones)


@pytest.mark.parametrize("family", supported_families())
def test_wider_streams_and_more_rows_keep_more(family: str) -> None:
    kept = {}
    for variant in ("baseline", "mhc"):
        for rows in (1, 2):
            model = graft(make.backbone(family), variant)
            first, *_, last = layer_footprints(model, rows, 16, torch.float32)
            kept[variant, rows] = first.kept
            streams = 4 if variant == "mhc" else 1
            assert (first.entering, last.entering) == (rows * 16 * 32 * 4, rows * 16 * 32 * 4 * streams)
    # what does not grow with the rows: rotary tables, the router's weights
    assert 1.9 < kept["baseline", 2] / kept["baseline", 1] <= 2
    # at least the streams after each of the two sublayers
    assert kept["mhc", 1] - kept["baseline", 1] > 2 * (4 - 1) * 16 * 32 * 4


def test_the_plan_of_the_largest_paper_suite_needs_no_data_and_no_gpu(tmp_path: Path) -> None:
    suite = load_suite("paper-27b", ["variants=[mhc]"])
    rows = plan(suite, tmp_path, count(run_configs(suite)))
    (row,) = to_json(rows)["rows"]
    assert row["tokens_per_run"] == 1280 * 4096 * 50_000
    total = row["parameters"]["total"]
    world = suite.hardware.devices * suite.hardware.nodes
    assert row["checkpoint_bytes"] == 12 * total
    memory = row["memory"]
    state = memory["parameters"] + memory["gradients"] + memory["optimizer"]
    # 72 experts over 64 ranks: two on the fullest
    assert 16 * total / world < state < 16 * total / world * 128 / 72
    assert memory["peak"] > memory["activations"] + state * 3 / 4
    assert memory["peak_checkpointed"] < memory["peak"]
    assert row["hours"] == pytest.approx(row["flops_per_run"] / row["flops_per_second"] / 3600)
    assert row["flops_per_second"] == pytest.approx(4e14 * world)

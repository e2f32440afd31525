"""Two ranks under FSDP2 over gloo, as forks of this process, against one device."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from mhc_bench.kit.backbones import token_ids
from mhc_bench.kit.outcome import Check, Failed, NotApplicable, Outcome, outcome_of
from mhc_bench.kit.subject import Subject
from mhc_bench.model import materialise, residual_connections

WORLD = 2
SECONDS = 600.0
"""After which ranks that wait for each other are ended."""
CLOSE = 1e-4
CLOSE_BF16 = 0.1


def sharding(subject: Subject) -> str:
    """Two ranks under FSDP2 compute one device's loss and gradient norm; in bf16 the maps stay fp32."""
    if not hasattr(os, "fork"):
        raise NotApplicable("this system cannot fork")
    import mhc_bench.training.sharding  # noqa: F401  # once, ahead of the forks

    expected = _loss_and_norm(subject.model().train())
    first, second = _on_ranks(subject)
    for found in (first, second):
        if found.status == "fail":
            raise Failed(f"on two ranks: {found.reason}", line=found.line)
    loss, norm, loss_bf16 = map(float, first.reason.split())
    if first.reason != second.reason:
        raise Failed(f"two ranks disagree: {first.reason}, {second.reason}", "read")
    for what, mine, one in zip(("loss", "gradient norm"), (loss, norm), expected, strict=True):
        if not math.isclose(mine, one, rel_tol=CLOSE):
            raise Failed(f"{what} is {mine:.6g} on two ranks and {one:.6g} on one device", "read")
    if not math.isclose(loss_bf16, loss, rel_tol=CLOSE_BF16):
        raise Failed(f"the loss is {loss_bf16:.4g} in bf16 and {loss:.4g} in fp32", "read")
    return ""


def _loss_and_norm(model: Any) -> tuple[float, float]:
    """Of a fixed batch; gradients may be sharded."""
    loss: Tensor = model(input_ids=token_ids(), use_cache=False).logits.float().square().mean()
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    whole = [grad.full_tensor() if hasattr(grad, "full_tensor") else grad for grad in grads]
    return loss.item(), torch.stack([each.norm() for each in whole]).norm().item()


def _on_ranks(subject: Subject) -> list[Outcome]:
    """What each rank finds; one that dies or waits for ever has failed."""
    context = torch.multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_rank, args=(rank, subject, Path(folder))) for rank in range(WORLD)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(SECONDS)
        for rank in ranks:
            if rank.is_alive():
                rank.kill()
                rank.join()
        return [_read(Path(folder) / str(rank)) for rank in range(WORLD)]


def _read(path: Path) -> Outcome:
    if not path.exists():
        return Outcome("sharding", "fail", f"a rank died, or waited for more than {SECONDS:g} s")
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def _rank(rank: int, subject: Subject, folder: Path) -> None:
    """One rank: writes its outcome, whole or not at all."""
    torch.set_num_threads(1)  # threads of the parent do not exist here
    outcome = outcome_of(Check("sharding", "", lambda it: _as_rank(rank, it, folder)), subject)
    temporary = folder / f"{rank}.tmp"
    temporary.write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
    temporary.rename(folder / str(rank))
    os._exit(0)


def _as_rank(rank: int, subject: Subject, folder: Path) -> str:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    loss, norm = _loss_and_norm(_sharded(subject, "fp32"))
    model = _sharded(subject, "bf16")
    loss_bf16, _ = _loss_and_norm(model)
    for connection in residual_connections(model).values():
        _fp32_inside(connection)
    return f"{loss!r} {norm!r} {loss_bf16!r}"


def _sharded(subject: Subject, precision: Any) -> Any:
    from mhc_bench.training.sharding import shard

    model = subject.grafted()
    shard(model, init_device_mesh("cpu", (WORLD,)), WORLD, precision)
    materialise(model, 0, rule="fan_in", scale=1.0)
    return model.train()


def _fp32_inside(connection: Any) -> None:
    stream = connection.expand(torch.randn(1, 3, connection.width).bfloat16())
    told = connection.maps(stream)
    if told is not None and any(each.dtype != torch.float32 for each in told):
        raise Failed("maps are not fp32 in a bf16 model", "maps")

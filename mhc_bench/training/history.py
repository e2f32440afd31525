"""What happened in every step of a run, equal on all ranks, carried through checkpoints."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mhc_bench.data.digest import EMPTY, extend


class History:
    """One value per finished step. Losses and rows of the ranks are joined by `flush`, every few steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        """Mean loss over the global batch."""
        self.norms: list[float] = []
        """Global gradient norm before clipping."""
        self.seconds: list[float] = []
        self.chain = EMPTY
        """Digest of the token stream so far (see `mhc_bench.data.digest`)."""
        self.validation: list[dict[str, float]] = []
        self.probes: dict[str, list[tuple[int, float]]] = {}
        self.hardware: list[dict[str, Any]] = []
        """What the steps ran on: a row for the first, and for each from which on it was something else."""
        self.diverged_step: int | None = None
        self._elapsed = 0.0
        self._began = time.perf_counter()
        self._pending_losses: list[Tensor] = []
        self._pending_rows: list[list[bytes]] = []

    def __len__(self) -> int:
        return len(self.norms)

    def add(self, losses: list[Tensor], rows: list[bytes], norm: float, seconds: float) -> None:
        """One finished step of this rank: losses of its forward passes, digests of its rows."""
        self._pending_losses.append(torch.stack(losses).mean())
        self._pending_rows.append(list(rows))
        self.norms.append(norm)
        self.seconds.append(seconds)

    def flush(self) -> None:
        """Join what the ranks have pending; collective."""
        if not self._pending_rows:
            return
        losses, ranks = torch.stack(self._pending_losses).double(), [self._pending_rows]
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(losses)
            losses /= dist.get_world_size()
            ranks = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(ranks, self._pending_rows)
        self.losses.extend(losses.tolist())
        for parts in zip(*ranks, strict=True):
            self.chain = extend(self.chain, (row for part in parts for row in part))
        self._pending_losses, self._pending_rows = [], []

    def runs_on(self, cost_id: str, devices: int, nodes: int, sharding: str) -> None:
        """The next step will be on this hardware."""
        now = {"cost_id": cost_id, "devices": devices, "nodes": nodes, "sharding": sharding}
        if not self.hardware or self.hardware[-1] | now != self.hardware[-1]:
            self.hardware.append({"after_step": len(self)} | now)

    def seconds_on_last_hardware(self) -> list[float]:
        """Of each step, as far as the hardware was that of the last one."""
        return self.seconds[self.hardware[-1]["after_step"] if self.hardware else 0 :]

    def add_validation(self, step: int, tokens: int, values: dict[str, float]) -> None:
        """A validation after `step`; values that are not finite say nothing and are left out."""
        if all(math.isfinite(value) for value in values.values()):
            self.validation.append({"step": step, "tokens": tokens, **values})

    def add_probes(self, step: int, values: dict[str, float]) -> None:
        """Probe scalars measured after `step`."""
        for name, value in values.items():
            if math.isfinite(value):
                self.probes.setdefault(name, []).append((step, value))

    def elapsed(self) -> float:
        """Seconds of training up to now, those before the checkpoint included."""
        return self._elapsed + time.perf_counter() - self._began

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, for a checkpoint; call `flush` first."""
        return {
            "steps": torch.tensor([self.losses, self.norms, self.seconds], dtype=torch.float64),
            "chain": self.chain.hex(),
            "validation": self.validation,
            "probes": self.probes,
            "hardware": self.hardware,
            "elapsed": self.elapsed(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.losses, self.norms, self.seconds = state["steps"].tolist()
        self.chain = bytes.fromhex(state["chain"])
        self.validation = list(state["validation"])
        self.probes = {
            name: [(step, value) for step, value in points] for name, points in state["probes"].items()
        }
        self.hardware = list(state["hardware"])
        self._elapsed, self._began = state["elapsed"], time.perf_counter()

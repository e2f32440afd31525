"""Where a bench's figures come from: command, date, commit, versions, machine."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from mhc_bench.bench.peers import PEERS
from mhc_bench.bench.rates import gpu_name
from mhc_bench.provenance import commit, machine, versions


@dataclass(frozen=True)
class Origin:
    """What a reader needs to measure again."""

    command: str
    date: str
    """UTC, ISO 8601."""
    commit: str
    dirty: bool | None
    versions: dict[str, str]
    """Of what can change a result, and of installed peers."""
    machine: dict[str, Any]
    gpu: str
    """Empty on a CPU."""
    cuda: str
    """CUDA version of torch; empty on a CPU."""


def origin_of(command: str, device: torch.device) -> Origin:
    """The origin of what is measured now on `device`."""
    head, dirty = commit()
    gpu = device.type == "cuda"
    return Origin(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=head,
        dirty=dirty,
        versions=versions() | _peers(),
        machine=machine(),
        gpu=gpu_name(device),
        cuda=str(torch.version.cuda or "") if gpu else "",
    )


def _peers() -> dict[str, str]:
    found = {}
    for peer in PEERS.values():
        try:
            found[peer.package] = importlib.metadata.version(peer.package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

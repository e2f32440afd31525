"""What a model keeps between its forward and its backward pass, by who made it, and the paper's count beside.

Measured in the training step itself, with what is recomputed and without: storages that operations made in
the forward pass and that are alive at its end. Layers run eagerly here, whatever the suite compiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from mhc_bench.bench.floor import stream_count
from mhc_bench.bench.subject import StepSubject, check_comparable, release
from mhc_bench.bench.traffic import kept_units
from mhc_bench.config import RunConfig
from mhc_bench.data import open_source
from mhc_bench.model import decoder_layers, residual_connections
from mhc_bench.model.footprint import LiveBytes

Place = Literal["path", "update", "sublayer", "rest"]
"""Who made a tensor: `path`, the residual connections and the norms around attention and MLP; `update`, the
output of attention or MLP; `sublayer`, everything else in them; `rest`, embedding, head and loss."""
Recompute = Literal["none", "layer", "block"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "layer", "block")


@dataclass(frozen=True)
class KeptActivations:
    """Of one variant with one kind of recomputation; bytes are per token of the batch, over all layers."""

    variant: str
    recompute: Recompute
    streams: int
    sublayers: int
    block: int
    """Sublayers that share a kept stream; 1 without block recompute."""
    unit_bytes: int
    """One hidden state of one token in the stream's dtype: C elements."""
    path_bytes: float
    """Kept of the residual path: streams, maps, norms, and outputs of attention and MLP."""
    sublayer_bytes: float
    """Kept inside attention and MLP."""
    rest_bytes: float
    formula_bytes: float
    """What the paper's table 3 counts for the residual path."""
    not_measured: str = ""
    """Why there is nothing but the formula; empty where there is."""

    @property
    def path_units(self) -> float:
        """Kept of the residual path in hidden states per sublayer."""
        return self.path_bytes / self.unit_bytes / self.sublayers

    @property
    def formula_units(self) -> float:
        """The paper's count in hidden states per sublayer."""
        return self.formula_bytes / self.unit_bytes / self.sublayers


class KeptStorages(LiveBytes):  # type: ignore[no-untyped-call]
    """The storages that operations inside make, and the place of each."""

    def __init__(self, place: Place = "rest") -> None:
        super().__init__()
        self.place: Place = place
        """Where what is made now belongs."""
        self._made: dict[int, tuple[weakref.ref[torch.UntypedStorage], Place]] = {}

    def _add(self, storage: torch.UntypedStorage) -> None:
        known = storage._cdata in self._seen
        super()._add(storage)
        if not known:
            self._made[storage._cdata] = (weakref.ref(storage), self.place)

    def move(self, output: object, place: Place) -> None:
        """Say that what holds `output` belongs to `place`."""
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and first.untyped_storage()._cdata in self._made:
            storage = first.untyped_storage()
            self._made[storage._cdata] = (weakref.ref(storage), place)

    def kept(self, module: nn.Module | None = None) -> dict[Place, int]:
        """Bytes still alive by place; not those of parameters and buffers of `module`, gathered or not."""
        own = set() if module is None else {storage._cdata for storage in _storages(module)}
        found = _nothing()
        for key, (reference, place) in self._made.items():
            storage = reference()
            if storage is not None and key not in own:
                found[place] += storage.nbytes()
        return found


def kept_activations(configs: Sequence[RunConfig]) -> list[KeptActivations]:
    """Of every configuration with nothing, layers and blocks recomputed; one model at a time.

    Raises:
        UsageError: the configurations do not belong together.
    """
    check_comparable(configs)
    source = open_source(configs[0].data)
    found = []
    for config in configs:
        for recompute in RECOMPUTE:
            hardware = dataclasses.replace(config.hardware, recompute=recompute, compile=False)
            subject = StepSubject(dataclasses.replace(config, hardware=hardware), source, batches=1)
            found.append(_measured(subject, recompute))
            del subject
            release(configs)
    return found


def _measured(subject: StepSubject, recompute: Recompute) -> KeptActivations:
    rows, reason = subject.parts()[0], ""
    tokens = rows.shape[0] * (rows.shape[1] - 1)
    try:
        kept = keep_forward(subject, rows)
    except torch.OutOfMemoryError:
        kept, reason = _nothing(), "out of memory"
    model = subject.module.model
    connections = list(residual_connections(model).values())
    width = int(model.config.hidden_size)
    streams, sublayers = stream_count(connections[0], width), len(connections)
    unit, block = width * subject.itemsize, _block(model)
    return KeptActivations(
        variant=subject.name,
        recompute=recompute,
        streams=streams,
        sublayers=sublayers,
        block=block,
        unit_bytes=unit,
        path_bytes=(kept["path"] + kept["update"]) / tokens,
        sublayer_bytes=kept["sublayer"] / tokens,
        rest_bytes=kept["rest"] / tokens,
        formula_bytes=unit * kept_units(streams, sublayers, recompute, block),
        not_measured=reason,
    )


def _block(model: PreTrainedModel) -> int:
    """Sublayers that share a kept stream under block recompute, or 1."""
    layer: Any = decoder_layers(model)[0][1]
    return 2 * layer.blocks.layers if layer.blocks is not None else 1


def _nothing() -> dict[Place, int]:
    return {"path": 0, "update": 0, "sublayer": 0, "rest": 0}


def keep_forward(subject: StepSubject, rows: Tensor) -> dict[Place, int]:
    """Bytes that one forward pass over `rows` leaves behind, by place."""
    model = subject.module.model
    with KeptStorages() as storages, attributed(model, storages):
        storages.watch(rows)
        loss = subject.forward(rows)
    kept: dict[Place, int] = storages.kept(model)
    del loss
    return kept


@contextlib.contextmanager
def attributed(model: PreTrainedModel, storages: KeptStorages) -> Iterator[None]:
    """Tell `storages` where the forward passes of `model` are."""

    def enter(place: Place) -> Any:
        return lambda *_: setattr(storages, "place", place)

    def leave(module: nn.Module, given: object, output: object) -> None:
        storages.place = "path"
        storages.move(output, "update")

    handles = []
    for _, layer in decoder_layers(model):
        handles += [
            layer.register_forward_pre_hook(enter("path")),
            layer.register_forward_hook(enter("rest")),
        ]
        family: Any = layer.family
        for sublayer in (family.attention, family.mlp):
            part = getattr(layer, sublayer.module)
            handles += [part.register_forward_pre_hook(enter("sublayer")), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _storages(module: nn.Module) -> Iterator[torch.UntypedStorage]:
    for tensor in (*module.parameters(), *module.buffers()):
        yield (tensor.to_local() if isinstance(tensor, DTensor) else tensor).untyped_storage()

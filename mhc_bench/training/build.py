"""A run's model on the meta device. No Lightning here: counting a model must not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mhc_bench.config.schema import DataConfig, RunConfig, ShardsConfig
from mhc_bench.errors import UsageError
from mhc_bench.model import build_backbone, graft, routers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mhc_bench.data.source import TokenSource


@dataclass(frozen=True)
class Vocabulary:
    """What a model needs to know of its data."""

    size: int
    """V, rows of the embedding."""
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None


def vocabulary_of(source: TokenSource) -> Vocabulary:
    """The vocabulary of an open source."""
    tokenizer = source.tokenizer
    return Vocabulary(
        source.vocabulary, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    )


def declared_vocabulary(data: DataConfig) -> Vocabulary | None:
    """The vocabulary that a configuration states, without special tokens; None where only the data can tell.

    Enough to count a model by, not to train it.
    """
    return Vocabulary(data.vocabulary) if isinstance(data, ShardsConfig) else None


def build_model(config: RunConfig, source: TokenSource) -> PreTrainedModel:
    """The grafted model of a run on the meta device: shapes and names, no memory.

    Raises:
        UsageError: for an unknown family, variant or option, or experts to balance where there are none.
    """
    return build_for(config, vocabulary_of(source))


def build_for(config: RunConfig, vocabulary: Vocabulary) -> PreTrainedModel:
    """`build_model` for a vocabulary whose source need not be at hand.

    Raises:
        UsageError: as `build_model`.
    """
    model = build_backbone(
        config.model.family,
        config.model.backbone,
        vocabulary=vocabulary.size,
        bos_id=vocabulary.bos_id,
        eos_id=vocabulary.eos_id,
        pad_id=vocabulary.pad_id,
        max_positions=config.training.sequence_length,
        device="meta",
    )
    if (speed := config.optimizer.balancing_speed) and not routers(model):
        raise UsageError(
            f"optimizer.balancing_speed is {speed}: expected 0 for a model without routed experts"
        )
    return graft(model, config.variant.connection, **config.variant.options)

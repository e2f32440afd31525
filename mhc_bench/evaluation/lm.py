"""lm-eval's HFLM, computing what the prompts of a batch have in common (the worked examples) once.

Shapes: `B` rows, `L` positions of the longest row, `p` positions of the common beginning.
"""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

SHORTEST = 8
"""A shorter common beginning is not worth a forward pass of its own."""


class SharedPrefixLM(HFLM):
    """Same answers as HFLM up to rounding; strings are tokenised once."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        precision: torch.dtype | None,
    ) -> None:
        super().__init__(model, tokenizer=tokenizer, batch_size=batch_size, mixed_precision_dtype=precision)
        self._encoded: dict[str, list[int]] = {}

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        """As HFLM; lm-eval encodes every context once for each of its choices and again for sorting."""
        if add_special_tokens is not None or left_truncate_len is not None or options:
            tokens: list[int] = super().tok_encode(string, add_special_tokens, left_truncate_len, **options)
            return tokens
        if string not in self._encoded:
            self._encoded[string] = super().tok_encode(string)
        return list(self._encoded[string])

    def _model_call(
        self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Logits [B, L, V] of right-padded rows [B, L]."""
        prefix = self._prefix(inps, inps.shape[1]) if attn_mask is None and labels is None else None
        if prefix is None:
            whole: Tensor = super()._model_call(inps, attn_mask, labels)
            return whole
        cache, logits = prefix
        with torch.no_grad(), self._autocast():
            rest = self.model(inps[:, logits.shape[1] :], past_key_values=cache, use_cache=True).logits
        return torch.cat((logits.expand(len(inps), -1, -1), rest), dim=1)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        """Continuations of left-padded rows [B, L]; the padding moves behind the common beginning."""
        mask = options.pop("attention_mask")
        pads = context.shape[1] - mask.sum(dim=1, keepdim=True)
        places = torch.arange(context.shape[1], device=context.device)
        from_left = context.gather(1, (places + pads) % context.shape[1])
        prefix = self._prefix(from_left, int(mask.sum(dim=1).min()))
        if prefix is not None:
            cache, logits = prefix
            p = logits.shape[1]
            hole = (places >= p) & (places < p + pads)
            shifted = from_left.gather(1, (places - pads) % context.shape[1])
            context = torch.where(places < p, from_left, shifted).masked_fill(
                hole, self.tokenizer.pad_token_id
            )
            mask, options["past_key_values"] = (~hole).long(), cache
        tokens: Tensor = super()._model_generate(context, max_length, stop, attention_mask=mask, **options)
        return tokens

    def _prefix(self, rows: Tensor, shortest: int) -> tuple[Cache, Tensor] | None:
        """Cache for B rows and logits [1, p, V] of what left-aligned `rows` share; None if it is little.

        At least the last of the `shortest` row's tokens stays to be computed.
        """
        same = (rows == rows[:1]).all(dim=0)[: shortest - 1].long()
        p = int(same.cumprod(0).sum())
        if p < SHORTEST or len(rows) == 1:
            return None
        with torch.no_grad(), self._autocast():
            out = self.model(rows[:1, :p], use_cache=True)
        cache: Cache = out.past_key_values
        if any(cache.is_sliding):
            # a window counts positions in the cache, and padding in the middle would take some of them
            return None
        cache.batch_repeat_interleave(len(rows))
        return cache, out.logits

    def _autocast(self) -> torch.autocast:
        dtype = self.mixed_precision_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

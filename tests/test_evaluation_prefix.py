"""Sharing the common beginning of a batch changes no answer, whatever the residual connection."""

from __future__ import annotations

import random
from collections.abc import Callable

import evaluation_toy as toy
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

from mhc_bench.evaluation.lm import SharedPrefixLM
from mhc_bench.model import graft

COMMON = "<eos> " + " ".join(f"w{i}" for i in range(20, 34))


def grafted(variant: str) -> PreTrainedModel:
    model = graft(toy.model(), variant)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "residual" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def sliding() -> PreTrainedModel:
    """Attention over the last 6 positions only."""
    stock = toy.model().config
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: getattr(stock, name) for name in kept}
    config = MistralConfig(**sizes, num_key_value_heads=2, head_dim=16, sliding_window=6, eos_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MistralForCausalLM(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def prompts(beginning: str) -> list[str]:
    draw = random.Random(0)
    return [f"{beginning} {' '.join(draw.choices(toy.WORDS[3:], k=draw.randint(1, 9)))}" for _ in range(12)]


def scored(lm: HFLM, contexts: list[str]) -> list[tuple[float, bool]]:
    pairs = [(context, f" w{i} w{i + 1}") for i, context in enumerate(contexts)]
    requests = [Instance("loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
    found: list[tuple[float, bool]] = lm.loglikelihood(requests, disable_tqdm=True)
    return found


def generated(lm: HFLM, contexts: list[str]) -> list[str]:
    options = {"until": [" ."], "max_gen_toks": 6, "do_sample": False}
    requests = [
        Instance("generate_until", doc={}, arguments=(context, options), idx=0) for context in contexts
    ]
    found: list[str] = lm.generate_until(requests, disable_tqdm=True)
    return found


def positions(model: PreTrainedModel, work: Callable[[], object]) -> int:
    """Token positions that `model` computes while `work` runs."""
    seen = []
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _, args, out: seen.append(args[0].numel())
    )
    work()
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("beginning", [COMMON, "<eos>"], ids=["worked example", "nothing"])
@pytest.mark.parametrize("variant", ["baseline", "hc", "mhc"])
def test_scores_and_continuations_equal_those_of_hflm(variant: str, beginning: str) -> None:
    model, contexts = grafted(variant), prompts(beginning)
    plain = HFLM(model, tokenizer=toy.tokenizer(), batch_size=5)
    shared = SharedPrefixLM(model, toy.tokenizer(), 5, None)
    expected, found = scored(plain, contexts), scored(shared, contexts)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=2e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    said = generated(shared, contexts)
    assert said == generated(plain, contexts)
    assert len(set(said)) > 4


def test_the_common_beginning_is_computed_once_per_batch() -> None:
    model, contexts = grafted("mhc"), prompts(COMMON)
    plain = HFLM(model, tokenizer=toy.tokenizer(), batch_size=6)
    shared = SharedPrefixLM(model, toy.tokenizer(), 6, None)
    for ask in (scored, generated):
        before = positions(model, lambda ask=ask: ask(plain, contexts))
        after = positions(model, lambda ask=ask: ask(shared, contexts))
        assert before - after == 2 * 5 * len(COMMON.split())


def test_a_sliding_window_is_left_to_hflm() -> None:
    """Padding in the middle would use up its positions."""
    model, contexts = sliding(), prompts(COMMON)
    plain = HFLM(model, tokenizer=toy.tokenizer(), batch_size=6)
    shared = SharedPrefixLM(model, toy.tokenizer(), 6, None)
    assert generated(shared, contexts) == generated(plain, contexts)
    assert scored(shared, contexts) == scored(plain, contexts)


def test_a_batch_of_equal_prompts_is_answered() -> None:
    model = grafted("baseline")
    same = [COMMON] * 4
    plain = HFLM(model, tokenizer=toy.tokenizer(), batch_size=4)
    shared = SharedPrefixLM(model, toy.tokenizer(), 4, None)
    assert generated(shared, same) == generated(plain, same)


def test_bfloat16_answers_are_those_of_hflm_under_autocast() -> None:
    model, contexts = grafted("mhc"), prompts(COMMON)
    plain = HFLM(model, tokenizer=toy.tokenizer(), batch_size=5, mixed_precision_dtype=torch.bfloat16)
    shared = SharedPrefixLM(model, toy.tokenizer(), 5, torch.bfloat16)
    expected = [score for score, _ in scored(plain, contexts)]
    assert [score for score, _ in scored(shared, contexts)] == pytest.approx(expected, rel=0.05, abs=0.3)
    exact = [score for score, _ in scored(HFLM(model, tokenizer=toy.tokenizer(), batch_size=5), contexts)]
    assert expected != exact

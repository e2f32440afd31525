"""lm-eval on a model in memory: quiet, offline, with every item's result kept."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhc_bench.errors import RunError
from mhc_bench.evaluation.availability import offline, task_manager
from mhc_bench.evaluation.lm import SharedPrefixLM
from mhc_bench.evaluation.quiet import Progress, quiet_lm_eval

BOOTSTRAP = 100
"""Resamples for the standard error of a metric without a closed form; a mean has one."""


@dataclass(frozen=True)
class Outcome:
    """What lm-eval returned."""

    results: dict[str, Any]
    """lm-eval's own results, without the samples."""
    samples: dict[str, list[dict[str, Any]]]
    """Task -> one entry per item (and filter), in the task's order."""
    gold: dict[str, list[float]]
    """Task -> log-likelihood of the gold answer per item, in nats."""
    tasks: dict[str, Any]
    """Task -> lm-eval's task object."""
    warnings: list[str]
    """What lm-eval said about the requests, such as a context that was cut."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Group that is one score, such as MMLU -> its tasks."""


def make_lm(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, precision: str
) -> LM:
    """`model` as lm-eval's model, on its own device; `bf16` computes under autocast."""
    dtype = torch.bfloat16 if precision == "bf16" else None
    with quiet_lm_eval(None):
        return SharedPrefixLM(model, tokenizer, batch_size, dtype)


def ask(
    lm: LM,
    names: Sequence[str],
    *,
    folder: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    limit: int | None = None,
    on_progress: Progress | None = None,
) -> Outcome:
    """What a model answers.

    Args:
        folder: where the tasks are defined (default: the shipped ones).
        metadata: handed to the tasks' loaders, such as `world_seed`.
        limit: items per task, from the start of its fixed order.
        on_progress: told what is being done, how many requests are done and how many there are.

    Raises:
        RunError: a task whose data is not on this machine.
    """
    with quiet_lm_eval(on_progress) as warnings:
        tasks = _load(list(names), folder, metadata)
        results = lm_eval.evaluate(lm, tasks, limit=limit, bootstrap_iters=BOOTSTRAP)
        samples = results.pop("samples")
        gold = {name: _gold(lm, tasks["tasks"][name], items) for name, items in samples.items()}
    return Outcome(results, samples, gold, tasks["tasks"], warnings, _scored_groups(tasks["groups"]))


def _scored_groups(groups: Mapping[str, Any]) -> dict[str, list[str]]:
    """Outermost groups with a score of their own; a group without one is only a list of tasks."""
    scored = {name: group for name, group in groups.items() if group.has_aggregation}
    inner = {each.name for group in scored.values() for each in group.get_all_groups()}
    return {
        name: [task.task_name for task in group.get_all_tasks()]
        for name, group in scored.items()
        if name not in inner
    }


def _load(names: list[str], folder: Path | None, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Build the tasks, seeded as lm-eval's own command line seeds them, so that both ask the same."""
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    manager = task_manager(names, folder, metadata)
    try:
        with offline():
            loaded: dict[str, Any] = dict(manager.load(names))
    except OSError as error:
        # datasets reports what it cannot fetch as a ConnectionError or FileNotFoundError
        raise RunError(f"cannot evaluate {', '.join(names)}: {str(error).splitlines()[0]}") from error
    for task in loaded["tasks"].values():
        if task.config.num_fewshot is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return loaded


def _gold(lm: LM, task: Any, items: list[dict[str, Any]]) -> list[float]:
    """Log-likelihood of each item's gold answer: from the choices where there are some, else scored."""
    once = list({item["doc_id"]: item for item in items}.values())
    if task.OUTPUT_TYPE == "multiple_choice":
        return [float(item["resps"][_gold_index(task, item)][0][0]) for item in once]
    if task.OUTPUT_TYPE != "generate_until":
        return []
    requests = [_gold_request(task, item) for item in once]
    return [float(score) for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]


def _gold_index(task: Any, item: dict[str, Any]) -> int:
    # where the choices are beginnings, as in WinoGrande, the text is the number of the right one
    gold = task.doc_to_text(item["doc"]) if task.multiple_input else item["target"]
    target = gold[0] if isinstance(gold, list) else gold
    return target if isinstance(target, int) else int(task.doc_to_choice(item["doc"]).index(target))


def _gold_request(task: Any, item: dict[str, Any]) -> Instance:
    target = item["target"][0] if isinstance(item["target"], list) else item["target"]
    pair = (item["arguments"][0][0], f"{task.config.target_delimiter}{target}")
    return Instance(request_type="loglikelihood", doc=item["doc"], arguments=pair, idx=0)

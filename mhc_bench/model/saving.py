"""Saved models: transformers checkpoints that name their variant, hold safetensors and no model code."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from mhc_bench.errors import MhcBenchError, RunError
from mhc_bench.files import rename_on_disk, write_json
from mhc_bench.model.auto import GraftedModel, grafted_config_class, grafted_model_class
from mhc_bench.model.checkpoint import read_section
from mhc_bench.model.digests import digest, persistent_tensors, whole
from mhc_bench.model.families import family_named

FINAL = Path("checkpoints") / "final"
"""Where a finished run keeps its model, in the run's folder."""
LARGEST_FILE = 5_000_000_000
"""Bytes of a weight file, unless one tensor is larger: what rank 0 holds while it saves a sharded model."""


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: str | os.PathLike[str]
) -> None:
    """Save a grafted model with its tokenizer; an earlier `folder` is replaced, and never left half-written.

    The folder also loads by `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` where this
    package is installed. Collective when the model is sharded: every rank calls, rank 0 writes.

    Raises:
        RunError: the model has not been grafted.
    """
    if not isinstance(model, GraftedModel):
        raise RunError(
            f"cannot save {type(model).__name__}: expected a grafted model (baseline is a variant, too)"
        )
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        for _ in weight_files(model):
            pass
        return
    with replacing(Path(folder)) as fresh:
        model.save_configuration(fresh)
        save_weights(model, fresh)
        model.describe(fresh)
        tokenizer.save_pretrained(fresh)


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write the weight files and, where there are several, their index, as transformers does."""
    places: dict[str, str] = {}
    size = 0
    for file, tensors in weight_files(model):
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
        size += sum(each.nbytes for each in tensors.values())
        tensors.clear()  # before the next file's are gathered
    if len(set(places.values())) > 1:
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, {"metadata": {"total_size": size}, "weight_map": places})


def weight_files(model: PreTrainedModel) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """File name and whole tensors, on the CPU, of each weight file; collective when sharded.

    Rank 0 holds one file's tensors at a time, the others one tensor.
    """
    tensors = dict(persistent_tensors(model))
    sizes = {name: torch.empty(each.shape, dtype=each.dtype, device="meta") for name, each in tensors.items()}
    files = split_torch_state_dict_into_shards(
        sizes, filename_pattern="model{suffix}.safetensors", max_shard_size=LARGEST_FILE
    ).filename_to_tensors
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    for file, names in files.items():
        gathered = ((name, whole(tensors[name])) for name in names)
        yield file, {name: each for name, each in gathered if first}


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder` that takes its place when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        old = fresh.with_suffix(".old")
        rename_on_disk(fresh, folder, aside=old)
        if old.exists():
            shutil.rmtree(old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def saved_weight_digest(folder: str | os.PathLike[str]) -> str | None:
    """`weight_digest` of the model that `save_model` wrote; None where there is none that can be read."""
    try:
        with ExitStack() as opened:
            paths = sorted(Path(folder).glob("*.safetensors"))
            files = [opened.enter_context(safe_open(path, framework="pt")) for path in paths]
            where = {name: file for file in files for name in file.keys()}  # noqa: SIM118  # no mapping
            return digest((name, where[name].get_tensor(name)) for name in sorted(where)) if where else None
    except (OSError, SafetensorError):
        return None


def find_damage(folder: str | os.PathLike[str], weights: str) -> str:
    """Why a folder is not the whole saved model whose `weight_digest` is `weights`; empty where it is.

    The weights are read twice; the code of the variant is not looked for.

    Raises:
        RunError: a file cannot be read although it is there. It may be readable later.
    """
    path = Path(folder)
    try:
        read_section(path)
        load_tokenizer(path)
    except RunError as error:
        return str(error)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): nothing was changed") from error
    return "" if saved_weight_digest(path) == weights else f"{path}: its weights are not those of the run"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that `save_model` wrote.

    Raises:
        RunError: missing or damaged.
    """
    try:
        found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
        return found
    except (OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> RunError:
    """The one line about a saved model that a library stumbles over."""
    return RunError(f"{folder}: damaged or incompatible model ({' '.join(str(error).split())})")


def load_model(folder: str | os.PathLike[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model (on the CPU, to evaluate) and tokenizer that `save_model` wrote; runs no code of the folder.

    A variant that is no shipped one is imported by the name that the folder gives.

    Raises:
        RunError: missing, damaged or of another kind.
    """
    path = Path(folder)
    section = read_section(path)
    try:
        family = family_named(section["family"])
        config = grafted_config_class(family).from_pretrained(path, local_files_only=True)
        config.name_or_path = ""
        kind: Any = grafted_model_class(family)
        model, report = kind.from_pretrained(
            path,
            config=config,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation=family.attention_kernel,
            experts_implementation="eager",
        )
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        RuntimeError,
        SafetensorError,
        MhcBenchError,
    ) as error:
        raise damaged(path, error) from error
    check_report(path, report)
    return model.eval(), load_tokenizer(path)


def check_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse a model that transformers would fill up with fresh weights and only warn about."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found := sorted(str(each) for each in report.get(kind, ())):
            what = kind.replace("_", " ")
            raise RunError(f"{folder}: weights do not fit the model: {len(found)} {what}, first {found[0]}")


def load_run(run_dir: str | os.PathLike[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The final model and tokenizer of a finished run.

    Raises:
        RunError: the run has not finished training, or its model is damaged.
    """
    folder = Path(run_dir) / FINAL
    if not folder.is_dir():
        raise RunError(f"{run_dir}: no finished model ({FINAL} is missing); train the run to its end first")
    return load_model(folder)

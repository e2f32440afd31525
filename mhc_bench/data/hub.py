"""The Hugging Face Hub: what can be had from it now, and the command that fetches the rest.

Without a network, downloads are retried for about 20 seconds; one cheap question first makes that a moment.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from mhc_bench.config.schema import ShardsConfig
from mhc_bench.data.tokenizer import FILE, SETTINGS_FILE, TokenizerFile
from mhc_bench.errors import RunError, UsageError

NAME = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")
"""`owner/name`, or the bare name of an old repository."""
COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 10.0
"""How long the Hub may take to answer."""


class UnavailableError(Exception):
    """Something is not here and cannot be fetched now: what, why, and the command that fetches it."""


def offline() -> bool:
    """Whether the Hub's client has been told to ask nobody (`HF_HUB_OFFLINE=1`)."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def _unavailable(what: str, reason: str, command: str) -> UnavailableError:
    return UnavailableError(
        f"{what} is not on this machine and cannot be fetched ({reason}); to fetch it: {command}"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def dataset_commit(config: ShardsConfig) -> str:
    """The commit that the revision stands for; offline, the revision itself where the data set is cached.

    Raises:
        UnavailableError: when neither the Hub nor the cache has it.
    """
    what = f"data set {config.source!r}"
    if offline():
        return _cached_commit(config, what)
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(config.source, revision=config.revision or None, timeout=SECONDS)
    except Exception as error:  # the client's network errors share no base class with its own
        hint = f"{fetch_command(config)}; once that is done, HF_HUB_OFFLINE=1 does without the Hub"
        raise _unavailable(what, _reason(error), hint) from error
    return str(found.sha)


def _cached_commit(config: ShardsConfig, what: str) -> str:
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(config.source, config.subset or None, revision=config.revision or None)
    except Exception as error:  # as above
        raise _unavailable(what, "HF_HUB_OFFLINE is set", fetch_command(config)) from error
    commit = str(builder.hash)
    # offline the library gives what it has, whatever was asked for
    if COMMIT.fullmatch(config.revision) and config.revision != commit:
        raise _unavailable(
            f"{what} at {config.revision}", f"the copy here is {commit}", fetch_command(config)
        )
    return commit


def fetch_command(config: ShardsConfig) -> str:
    """A shell command that leaves the data set in the cache, where `HF_HUB_OFFLINE=1` finds it."""
    options = [
        repr(config.source),
        *([repr(config.subset)] if config.subset else []),
        f"split={config.split!r}",
    ]
    options += [f"revision={config.revision!r}"] if config.revision else []
    return f'python -c "from datasets import load_dataset; load_dataset({", ".join(options)})"'


def dataset_texts(config: ShardsConfig, commit: str, skip: int) -> Iterator[str]:
    """The texts of the data set from row `skip` on: streamed, or offline from the cache.

    Raises:
        RunError: a split or field that it does not have.
    """
    from datasets import load_dataset

    streaming = not offline()
    try:
        rows = load_dataset(
            config.source,
            config.subset or None,
            split=config.split,
            revision=commit if streaming else config.revision or None,
            streaming=streaming,
        )
    except (ValueError, OSError) as error:
        raise RunError(f"data set {config.source!r} cannot be read: {_reason(error)}") from error
    # a map-style set raises where more is skipped than there is
    rows = rows.skip(skip) if streaming else itertools.islice(rows, skip, None)
    for row in rows:
        if config.text_field not in row:
            raise RunError(
                f"data set {config.source!r} has no field {config.text_field!r}: "
                f"expected one of {', '.join(row)}"
            )
        yield str(row[config.text_field] or "")


def hub_tokenizer(name: str, separator: str) -> TokenizerFile:
    """A published tokenizer from the cache or the Hub, from its `tokenizer.json` alone.

    Raises:
        UnavailableError: when neither has it.
        UsageError: a name that cannot be one, or no separator.
    """
    from tokenizers import Tokenizer

    if not NAME.fullmatch(name):
        raise UsageError(
            f"data.tokenizer is {name!r}: expected bytes, bpe:<vocabulary>, a {FILE} or a name on the Hub"
        )
    file, settings = _hub_file(name, FILE), _hub_file(name, SETTINGS_FILE)
    return TokenizerFile.of(
        Tokenizer.from_file(str(file)), json.loads(settings.read_text(encoding="utf-8")), separator, name
    )


def _hub_file(name: str, file: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    what, command = f"tokenizer {name!r}", f"hf download {name} {FILE} {SETTINGS_FILE}"
    if offline():
        raise _unavailable(what, "HF_HUB_OFFLINE is set", command)
    try:
        HfApi().model_info(name, timeout=SECONDS)
        return Path(hf_hub_download(name, file))
    except Exception as error:  # as above
        raise _unavailable(what, _reason(error), command) from error

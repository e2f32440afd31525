"""From a corpus to a folder of token shards; interrupted, it goes on after the last whole shard."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mhc_bench.config.schema import ShardsConfig
from mhc_bench.data import hub
from mhc_bench.data.corpus import Corpus, HubCorpus, LocalCorpus, open_corpus
from mhc_bench.data.encoding import Block, Encoding, validates
from mhc_bench.data.manifest import (
    LOCK_FILE,
    MANIFEST_FILE,
    UNFINISHED_FILE,
    Manifest,
    check_request,
    read_manifest,
    request_of,
    verify,
)
from mhc_bench.data.shards import stored_tokenizer
from mhc_bench.data.tokenizer import BYTES, FILE, TokenizerFile, local_tokenizer, trained_tokenizer
from mhc_bench.data.writing import Part
from mhc_bench.errors import RunError, UsageError
from mhc_bench.files import write_text

TRAINED_CHARACTERS = 10**8
"""A tokenizer that is trained on the spot sees the first training documents up to this many characters."""


@dataclass(frozen=True)
class Advance:
    """How far a preparation is."""

    documents: int
    tokens: int
    """Tokens that this call has encoded, of both parts."""
    seconds: float
    """What that took, the training of a tokenizer apart."""
    passed: int
    size: int | None
    """Bytes of the source's files: finished, and in all where that is known."""


def prepare(
    config: ShardsConfig,
    folder: Path,
    *,
    processes: int = 1,
    shard_tokens: int,
    report: Callable[[Advance], None] = lambda _: None,
) -> Manifest:
    """Write the shards of `config` to `folder`; where they are complete, hash them all again.

    Args:
        processes: Processes that encode; the result does not depend on them.
        shard_tokens: Training tokens from which on a shard is closed.

    Raises:
        UsageError: a source, tokenizer or vocabulary that cannot be, or a folder of other shards.
        RunError: something that has to be fetched first; a damaged shard.
    """
    if (folder / MANIFEST_FILE).is_file():
        return _check_complete(config, folder)
    corpus, published = _inputs(config)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_FILE):
        if (folder / MANIFEST_FILE).is_file():
            return _check_complete(config, folder)
        manifest, corpus = _start(config, folder, corpus, published, shard_tokens)
        encoding = Encoding(stored_tokenizer(folder, manifest), manifest.dtype, config.validation_fraction)
        blocks = encoding.blocks(corpus.texts(manifest.consumed), processes)
        manifest = _write(manifest, folder, _reported(blocks, manifest, corpus.size, report))
        _require_both_parts(config, manifest)
        manifest.write(folder / MANIFEST_FILE)
        (folder / UNFINISHED_FILE).unlink()
    verify(folder, manifest)
    return manifest


def _check_complete(config: ShardsConfig, folder: Path) -> Manifest:
    manifest = read_manifest(folder / MANIFEST_FILE)
    check_request(config, manifest, folder)
    verify(folder, manifest, again=True)
    stored_tokenizer(folder, manifest)
    if Path(config.source).expanduser().exists():
        _require_unchanged(LocalCorpus.of(config), manifest, folder)
    return manifest


def _require_unchanged(corpus: Corpus, manifest: Manifest, folder: Path) -> None:
    if corpus.revision != manifest.revision:
        raise UsageError(
            f"data.source {corpus.name!r} has changed since {folder} was begun: remove that "
            "folder to prepare the data again"
        )


def _inputs(config: ShardsConfig) -> tuple[Corpus, TokenizerFile | None]:
    """The texts, and the tokenizer unless the source makes it; all that is missing is told at once."""
    missing: list[str] = []
    corpus, tokenizer = None, None
    try:
        corpus = open_corpus(config)
    except hub.UnavailableError as error:
        missing.append(str(error))
    try:
        tokenizer = _published(config)
    except hub.UnavailableError as error:
        missing.append(str(error))
    if missing:
        raise RunError("; ".join(missing))
    assert corpus is not None
    return corpus, tokenizer


def _published(config: ShardsConfig) -> TokenizerFile | None:
    name = config.tokenizer
    if name == "bytes" or name.startswith("bpe:"):
        if config.separator:
            raise UsageError(f"data.separator is {config.separator!r}: tokenizer {name} has its own")
        _require_vocabulary(config, _trained_size(name), exactly=True)
        return None
    local = Path(name).expanduser()
    found = (
        local_tokenizer(local, config.separator)
        if local.exists()
        else hub.hub_tokenizer(name, config.separator)
    )
    _require_vocabulary(config, found.size(), exactly=False)
    return found


def _trained_size(name: str) -> int:
    if name == "bytes":
        return BYTES + 2
    size = name.removeprefix("bpe:")
    if not size.isdecimal() or int(size) < BYTES + 2:
        raise UsageError(
            f"data.tokenizer is {name!r}: expected bpe:<vocabulary> with at least {BYTES + 2} tokens"
        )
    return int(size)


def _require_vocabulary(config: ShardsConfig, size: int, exactly: bool) -> None:
    """Published models pad their embedding, so a published tokenizer may be smaller than it."""
    if config.vocabulary < size or (exactly and config.vocabulary != size):
        expected = f"{size}" if exactly else f"at least {size}"
        raise UsageError(
            f"data.vocabulary is {config.vocabulary}: expected {expected}, the tokens of {config.tokenizer}"
        )


def _start(
    config: ShardsConfig, folder: Path, corpus: Corpus, published: TokenizerFile | None, shard_tokens: int
) -> tuple[Manifest, Corpus]:
    """The manifest to go on from, and the corpus as it was when it was begun."""
    if (folder / UNFINISHED_FILE).is_file():
        return _resumed(config, folder, corpus, shard_tokens)
    tokenizer = published or _train(config, corpus)
    write_text(folder / FILE, tokenizer.text)
    manifest = Manifest(
        request=request_of(config),
        source=corpus.name,
        revision=corpus.revision,
        tokenizer_sha256=tokenizer.digest,
        separator=tokenizer.separator,
        separator_id=tokenizer.separator_id(),
        pad=tokenizer.pad,
        vocabulary=config.vocabulary,
        shard_tokens=shard_tokens,
    )
    manifest.write(folder / UNFINISHED_FILE)
    return manifest, corpus


def _resumed(
    config: ShardsConfig, folder: Path, corpus: Corpus, shard_tokens: int
) -> tuple[Manifest, Corpus]:
    manifest = read_manifest(folder / UNFINISHED_FILE)
    check_request(config, manifest, folder)
    if shard_tokens != manifest.shard_tokens:
        raise UsageError(
            f"{folder} was begun with shards of {manifest.shard_tokens} tokens, not {shard_tokens}: "
            f"remove it or go on with --shard-tokens {manifest.shard_tokens}"
        )
    if isinstance(corpus, HubCorpus):
        # the branch may have moved on since
        return manifest, dataclasses.replace(corpus, revision=manifest.revision)
    _require_unchanged(corpus, manifest, folder)
    return manifest, corpus


def _train(config: ShardsConfig, corpus: Corpus) -> TokenizerFile:
    size = _trained_size(config.tokenizer)
    texts = iter(()) if config.tokenizer == "bytes" else _training_texts(corpus, config.validation_fraction)
    tokenizer = trained_tokenizer(texts, size)
    _require_vocabulary(config, tokenizer.size(), exactly=True)
    return tokenizer


def _training_texts(corpus: Corpus, validation_fraction: float) -> Iterator[str]:
    characters = 0
    for text, _ in corpus.texts(0):
        if characters >= TRAINED_CHARACTERS:
            return
        if text.strip() and not validates(text, validation_fraction):
            characters += len(text)
            yield text


def _write(manifest: Manifest, folder: Path, blocks: Iterator[Block]) -> Manifest:
    """Append all blocks, recording each finished pair of shards."""
    number = len(manifest.of("train"))
    with Part(folder, number) as part:
        for block in blocks:
            part.add(block)
            manifest = _counted(manifest, block)
            if part.training_tokens >= manifest.shard_tokens:
                manifest = dataclasses.replace(manifest, shards=(*manifest.shards, *part.close()))
                manifest.write(folder / UNFINISHED_FILE)
                number += 1
                part.open(number)
        return dataclasses.replace(manifest, shards=(*manifest.shards, *part.close()))


def _counted(manifest: Manifest, block: Block) -> Manifest:
    return dataclasses.replace(
        manifest,
        documents=manifest.documents + block.documents,
        validation_documents=manifest.validation_documents + block.validation_documents,
        text_bytes=manifest.text_bytes + block.text_bytes,
        consumed=manifest.consumed + block.texts,
    )


def _reported(
    blocks: Iterator[Block], manifest: Manifest, size: int | None, report: Callable[[Advance], None]
) -> Iterator[Block]:
    documents, tokens, started = manifest.documents, 0, time.monotonic()
    for block in blocks:
        yield block
        documents, tokens = documents + block.documents, tokens + len(block.train) + len(block.validation)
        report(Advance(documents, tokens, time.monotonic() - started, block.passed, size))


def _require_both_parts(config: ShardsConfig, manifest: Manifest) -> None:
    for split in ("train", "validation"):
        if not manifest.of(split):
            raise RunError(
                f"data.source {config.source!r} has {manifest.documents} documents, none for {split}: "
                f"expected more text, or another data.validation_fraction than {config.validation_fraction}"
            )

"""Prepared token shards as a token source: documents packed with a separator, rows drawn by permutation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mhc_bench.config.load import load_data
from mhc_bench.config.parts import part_names
from mhc_bench.config.schema import ShardsConfig
from mhc_bench.data.manifest import (
    MANIFEST_FILE,
    UNFINISHED_FILE,
    Manifest,
    TokenStream,
    check_request,
    read_manifest,
    shard_folder,
    verify,
)
from mhc_bench.data.source import Row
from mhc_bench.data.tokenizer import FILE, TokenizerFile, token_bytes
from mhc_bench.data.windows import count_windows, training_start, validation_starts
from mhc_bench.errors import RunError, UsageError
from mhc_bench.files import file_digest


class ShardSource:
    """A `TokenSource` over a folder of shards."""

    def __init__(self, config: ShardsConfig, cache_dir: Path) -> None:
        """Open and check the shards.

        Raises:
            UsageError: not prepared, or prepared from something else.
            RunError: a shard or the tokenizer is missing, truncated or altered.
        """
        folder = shard_folder(config, cache_dir)
        manifest = _manifest(config, folder)
        check_request(config, manifest, folder)
        verify(folder, manifest)
        self._train = TokenStream(folder, manifest.of("train"), manifest.dtype)
        self._validation = TokenStream(folder, manifest.of("validation"), manifest.dtype)
        self._validation_tokens = config.validation_tokens
        self._validation_split = config.validation_split
        self.tokenizer = stored_tokenizer(folder, manifest).fast()
        self.vocabulary = manifest.vocabulary
        self.identity = {
            "source": f"{manifest.source} {manifest.request['split']} at {manifest.revision}",
            "fingerprint": manifest.fingerprint,
            "tokenizer": manifest.tokenizer_sha256,
        }

    def train_row(self, seed: int, index: int, length: int) -> Row:
        """Row `index`: every window of the training tokens once per epoch, in an order of (seed, epoch)."""
        windows = count_windows(len(self._train), length, "training")
        return self._train.read(training_start(seed, index, length, windows), length)

    def validation_rows(self, length: int) -> npt.NDArray[np.int64]:
        """Windows of the validation tokens, about `validation_tokens` in all, `[R, length]`."""
        starts = validation_starts(
            len(self._validation), length, self._validation_tokens, self._validation_split
        )
        return np.stack([self._validation.read(int(start), length) for start in starts])

    def validation_bytes_per_token(self, length: int) -> float:
        """Bytes of the targets per target; special tokens are tokens of no bytes.

        Exact for byte-level tokenizers. For others the rows are decoded, and a character that two rows share
        counts for both.
        """
        targets = self.validation_rows(length)[:, 1:]
        sizes = token_bytes(self.tokenizer, self.vocabulary)
        if sizes is not None:
            return float(sizes[targets].mean())
        texts = (str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in targets)
        return float(sum(len(text.encode()) for text in texts) / targets.size)


def stored_tokenizer(folder: Path, manifest: Manifest) -> TokenizerFile:
    """The tokenizer that the shards were made with.

    Raises:
        RunError: its file is missing or altered.
    """
    path = folder / FILE
    if not path.is_file() or file_digest(path) != manifest.tokenizer_sha256:
        raise RunError(f"{path} is missing or altered; remove the folder and prepare the data again")
    return TokenizerFile(path.read_text(encoding="utf-8"), manifest.separator, manifest.pad)


def _manifest(config: ShardsConfig, folder: Path) -> Manifest:
    if not (folder / MANIFEST_FILE).is_file():
        state = "prepared in part" if (folder / UNFINISHED_FILE).is_file() else "not prepared"
        raise UsageError(
            f"data {config.source!r} is {state}: no {MANIFEST_FILE} in {folder}; {_advice(config)}"
        )
    return read_manifest(folder / MANIFEST_FILE)


def _advice(config: ShardsConfig) -> str:
    """The command that prepares `config`, where a shipped source leads to the same shards."""
    for name in part_names("data"):
        shipped = load_data(name)
        if isinstance(shipped, ShardsConfig) and shard_folder(shipped, Path()) == shard_folder(
            config, Path()
        ):
            return f"run: mhc-bench prepare {name}"
    return "run: mhc-bench prepare DATA, with the suite's data settings"

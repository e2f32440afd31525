"""`mhc-bench prepare`: tokenise a source into shards, with a progress bar."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mhc_bench.config import ShardsConfig, load_data
from mhc_bench.data import default_cache
from mhc_bench.data.manifest import Manifest, shard_folder
from mhc_bench.data.preparing import Advance, prepare
from mhc_bench.errors import UsageError
from mhc_bench.provenance import available_cores
from mhc_bench.suite.report import duration


def run(name: str, overrides: list[str], processes: int | None, shard_tokens: int) -> int:
    """Prepare the data called `name`; safe to repeat. None: a process for each core that this one may use."""
    config = load_data(name, overrides)
    if not isinstance(config, ShardsConfig):
        raise UsageError(f"data {name!r} needs no preparation: runs read its kind, {config.kind}, as it is")
    processes = available_cores() if processes is None else processes
    _require_positive("--processes", processes)
    _require_positive("--shard-tokens", shard_tokens)
    console, folder, started = Console(), shard_folder(config, default_cache()), time.monotonic()
    last = Advance(0, 0, 0.0, 0, None)
    with _progress(console) as show:

        def report(advance: Advance) -> None:
            nonlocal last
            last = advance
            show(advance)

        manifest = prepare(config, folder, processes=processes, shard_tokens=shard_tokens, report=report)
    seconds = time.monotonic() - started
    console.print(_outcome(manifest, last, seconds), highlight=False, soft_wrap=True)
    console.print(f"Shards: {folder}", highlight=False, soft_wrap=True)
    return 0


def _require_positive(option: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{option} is {value}: expected at least 1")


def _outcome(manifest: Manifest, last: Advance, seconds: float) -> str:
    held = (
        f"{manifest.tokens('train'):,} training and {manifest.tokens('validation'):,} validation tokens of "
        f"{manifest.documents:,} documents in {len(manifest.shards)} shards"
    )
    if not last.tokens:
        return f"already prepared, all SHA-256 checked: {held}, {duration(seconds)}"
    return f"{held}, {duration(seconds)}, {_rate(last)}"


def _rate(advance: Advance) -> str:
    return f"{advance.tokens / max(advance.seconds, 1e-9):,.0f} tokens/s"


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[Advance], None]]:
    """A bar over the bytes of the source's files, or a pulse where they are not known."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def show(advance: Advance) -> None:
            text = f"{advance.documents:,} documents, {advance.tokens:,} tokens, {_rate(advance)}"
            progress.update(task, description=text, completed=advance.passed, total=advance.size)

        yield show

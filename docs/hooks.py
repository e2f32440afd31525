"""What the site adds to docs/: files outside it that are linked, and the reference of the command line.

Links stay those of the repository (`../results/README.md`), so that they work where the sources are read.
In the site a file of docs/ lies at its path below docs/, any other file at its path below the root.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
COMMANDS = "<!-- commands -->"


def site_path(path: Path) -> str:
    """Where a file of the repository lies in the site."""
    if path == ROOT / "README.md":
        return "index.md"
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()


def targets(page: Path, text: str) -> Iterator[Path]:
    """Files of the repository that a page links to."""
    for link in LINK.finditer(text):
        target = Path(os.path.normpath(page.parent / link[2]))
        if target.is_file() and target.is_relative_to(ROOT):
            yield target


def linked_outside() -> list[Path]:
    """All files outside docs/ that can be reached from its pages by links."""
    reached = set(DOCS.rglob("*.md"))
    waiting = list(reached)
    while waiting:
        page = waiting.pop()
        if page.suffix != ".md" or page == ROOT / "README.md":
            continue
        for target in set(targets(page, page.read_text(encoding="utf-8"))) - reached:
            reached.add(target)
            waiting.append(target)
    return sorted(path for path in reached - {ROOT / "README.md"} if not path.is_relative_to(DOCS))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked outside docs/."""
    for path in linked_outside():
        files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the repository's links into the site's, and fill in the commands."""
    source = Path(page.file.abs_src_path or "")
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / link[2]))
        if not target.is_file() or not target.is_relative_to(ROOT):
            return link[0]
        return f"{link[1]}{posixpath.relpath(site_path(target), here or '.')}{link[3]}"

    return LINK.sub(moved, markdown).replace(COMMANDS, commands() if COMMANDS in markdown else COMMANDS)


def commands() -> str:
    """Every verb of the parser with its usage, arguments and options."""
    sys.path.insert(0, str(ROOT))
    from mhc_bench.cli import _parser

    parser = _parser()
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    os.environ["COLUMNS"] = "100"
    parts = [
        f"## mhc-bench {name}\n\n```text\n{verb.format_help()}```\n" for name, verb in verbs.choices.items()
    ]
    return f"```text\n{parser.format_help()}```\n\n" + "\n".join(parts)

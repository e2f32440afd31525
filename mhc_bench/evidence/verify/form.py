"""Checks of form: canonical bytes, harmless text, names of files, corrections."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.strict import texts
from mhc_bench.evidence.verify.checks import (
    Entry,
    Finding,
    Remark,
    Submission,
    Tools,
    named,
    record_check,
    whole_check,
)

MARKUP = re.compile(r"<[A-Za-z/!?]|javascript:", flags=re.IGNORECASE)
FORMULA = re.compile(r"^\s*[=+@]|^\s*-(?![\d.])")
"""A spreadsheet reads such a cell as a formula."""
TOKEN = re.compile(r"^</?[A-Za-z0-9_|]{1,40}>$")
"""A special token of a tokenizer, such as `</s>`: allowed as the separator of documents alone."""
PUBLISHED_FOLDER = re.compile(r"^.+-[0-9a-f]{10}$")


@record_check(
    "canonical", "the file's bytes are the one form that this content has, so its digest is the content's"
)
def canonical_bytes(entry: Entry, tools: Tools) -> Iterator[Finding]:
    if canonical(entry.content).encode() != entry.data:
        yield entry.problem("bytes that are not canonical JSON", "one line per part, sorted keys, no spaces")


@record_check("text", "no text can act as markup, a script, a spreadsheet formula or a terminal command")
def harmless_text(entry: Entry, tools: Tools) -> Iterator[Finding]:
    separator = _separator(entry)
    for text in texts(entry.content):
        if not text.isprintable() and any(not each.isprintable() and each != "\n" for each in text):
            yield entry.problem(f"a control character in {text[:60]!r}", "printable text")
        elif MARKUP.search(text) and not (text == separator and TOKEN.match(text)):
            yield entry.problem(f"markup in {text[:60]!r}", "plain text")
        elif FORMULA.match(text):
            yield entry.problem(f"a formula in {text[:60]!r}", "text that no spreadsheet would compute")


def _separator(entry: Entry) -> object:
    data = entry.record.configuration.get("data")
    return data.get("separator") if isinstance(data, dict) else None


@record_check(
    "file name", "folder and file name say the suite, protocol, variant and seed that the record holds"
)
def file_name(entry: Entry, tools: Tools) -> Iterator[Finding]:
    if entry.path.name == "record.json":
        # a run's own record lies in seed<k>/; anywhere else its place says nothing
        seed = re.match(r"^seed(\d+)$", entry.path.parent.name)
        folders = entry.path.parent.parent
    else:
        seed = re.match(r"^seed(\d+)(-\d+)?\.json$", entry.path.name)
        folders = entry.path.parent
        yield from _published_name(entry, seed)
    identity = entry.record.identity
    if seed and seed[1] != str(identity.seed):
        yield entry.problem(seed[0], f"seed{identity.seed}")
    expected = (f"{identity.suite}-{identity.protocol_id}", identity.variant)
    found = folders.absolute().parts[-2:]
    published = entry.root is not None and entry.path.name != "record.json"
    if found != expected and (published or PUBLISHED_FOLDER.match(found[0])):
        yield entry.problem("/".join(found), "/".join(expected))


def _published_name(entry: Entry, seed: re.Match[str] | None) -> Iterator[Finding]:
    expected = "seed<k>-<n>.json" if entry.record.supersedes else "seed<k>.json"
    if seed is None or bool(seed[2]) != bool(entry.record.supersedes):
        yield entry.problem(entry.path.name, expected)


@whole_check("supersedes", "a correction names a record that is there, of the same run")
def supersedes(submission: Submission) -> Iterator[Finding | Remark]:
    known = {entry.record.digest: entry for entry in submission.entries}
    for entry in submission.entries:
        digest = entry.record.supersedes
        if digest is None:
            continue
        old = known.get(digest)
        if old is None and entry.root is None:
            yield entry.note(f"the record that it supersedes ({digest[:16]}) was not given")
        elif old is None:
            yield entry.problem(
                f"supersedes {digest[:16]}, which is not here", "the superseded record beside it"
            )
        elif _run(old) != _run(entry):
            yield entry.problem(f"supersedes {named(old)} of another run", f"a record of {named(entry)}")


def _run(entry: Entry) -> tuple[str, str, str, int]:
    identity = entry.record.identity
    return identity.suite, identity.protocol_id, identity.variant, identity.seed

"""Checks of form: canonical bytes, harmless text, names of files, corrections."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mhc_bench.evidence.record import canonical
from mhc_bench.evidence.store import RECORD_NAME
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
    identity = entry.record.identity
    path, own = entry.path, entry.path.name == "record.json"
    match = RECORD_NAME.match(path.name)
    seed_place = path.parent.name.removeprefix("seed") if own else (match and match["seed"])
    if match is None or (seed_place != str(identity.seed) and (not own or _is_run_folder(entry))):
        yield entry.problem(path.parent.name if own else path.name, f"seed{identity.seed}.json")
    folders = (path.parent.parent if own else path.parent).absolute()
    expected = (f"{identity.suite}-{identity.protocol_id}", identity.variant)
    placed = entry.root is not None and not own
    if (placed or PUBLISHED_FOLDER.match(folders.parent.name)) and folders.parts[-2:] != expected:
        yield entry.problem("/".join(folders.parts[-2:]), "/".join(expected))
    if match and (match["edition"] is not None) != (entry.record.supersedes is not None):
        yield entry.problem(path.name, "seed<k>-<n>.json for a record that supersedes one, else seed<k>.json")


def _is_run_folder(entry: Entry) -> bool:
    return entry.path.parent.name.startswith("seed")


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

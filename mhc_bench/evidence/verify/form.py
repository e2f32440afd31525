"""Checks of form: canonical bytes, harmless text, names of files, corrections."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mhc_bench.evidence.record import RESULTS, canonical
from mhc_bench.evidence.store import ATTEMPT_NAME
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
PUBLISHED_EDITION = re.compile(r"^seed\d+(?:-(\d+))?\.json$")
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
        if (found := harm(text)) and not (text == separator and TOKEN.match(text)):
            yield entry.problem(found, "plain text that nothing computes or displays as more")


def harm(text: str) -> str | None:
    """What a page, a spreadsheet or a terminal would do with a text, if anything."""
    if not text.isprintable() and any(not each.isprintable() and each != "\n" for each in text):
        return f"a control character in {text[:60]!r}"
    if MARKUP.search(text):
        return f"markup in {text[:60]!r}"
    return f"a formula in {text[:60]!r}" if FORMULA.match(text) else None


def _separator(entry: Entry) -> object:
    data = entry.record.configuration.get("data")
    return data.get("separator") if isinstance(data, dict) else None


@record_check(
    "file name", "folder and file name say the suite, protocol, variant and seed that the record holds"
)
def file_name(entry: Entry, tools: Tools) -> Iterator[Finding]:
    of_run_folder = entry.path.name == "record.json" or ATTEMPT_NAME.match(entry.path.name)
    if of_run_folder:
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
    published = entry.root is not None and not of_run_folder
    if found != expected and (published or PUBLISHED_FOLDER.match(found[0])):
        yield entry.problem("/".join(found), "/".join(expected))


def _published_name(entry: Entry, seed: re.Match[str] | None) -> Iterator[Finding]:
    expected = "seed<k>-<n>.json" if entry.record.supersedes else "seed<k>.json"
    if seed is None or bool(seed[2]) != bool(entry.record.supersedes):
        yield entry.problem(entry.path.name, expected)


@whole_check(
    "supersedes",
    "an edition replaces the one before it, of the same run, and says why if that had a result",
)
def supersedes(submission: Submission) -> Iterator[Finding | Remark]:
    """A circle of records cannot be: each would hold a digest of itself."""
    known = {entry.record.digest: entry for entry in submission.entries}
    heirs: dict[str, Entry] = {}
    for entry in submission.entries:
        digest = entry.record.supersedes
        if digest is None:
            if entry.record.correction is not None:
                yield entry.problem("a correction of no record", "the digest of the record that it replaces")
            continue
        if (heir := heirs.setdefault(digest, entry)) is not entry:
            yield entry.problem(f"supersedes what {heir.file} supersedes", "one successor of each record")
        old = known.get(digest)
        if old is not None:
            yield from _succession(old, entry)
        elif entry.root is None:
            yield entry.note(f"the record that it supersedes ({digest[:16]}) was not given")
        else:
            found = f"supersedes {digest[:16]}, which is not here"
            yield entry.problem(found, "the superseded record beside it")


def _succession(old: Entry, new: Entry) -> Iterator[Finding]:
    if _run(old) != _run(new):
        yield new.problem(f"supersedes {named(old)} of another run", f"a record of {named(new)}")
        return
    numbers = [match[1] for entry in (old, new) if (match := PUBLISHED_EDITION.match(entry.path.name))]
    if len(numbers) == 2 and int(numbers[0] or 1) + 1 != int(numbers[1] or 1):
        yield new.problem(f"supersedes {old.path.name}", "the edition before it")
    if old.record.status in RESULTS and not new.record.correction:
        yield new.problem(
            f"replaces a {old.record.status} run, no reason given", "a correction that says why"
        )
    if old.record.status in RESULTS and new.record.status not in RESULTS:
        yield new.problem(f"a {new.record.status} run in place of a {old.record.status} one", "a result")


def _run(entry: Entry) -> tuple[str, str, str, int]:
    identity = entry.record.identity
    return identity.suite, identity.protocol_id, identity.variant, identity.seed

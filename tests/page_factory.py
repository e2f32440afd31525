"""A leaderboard page of a study, with everything that a page can hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence_factory import LOSSES, SEEDS, make_evidence, study_records, write_all

from mhc_bench.evidence import Record, assemble_record, load_board
from mhc_bench.evidence.leaderboard import Contents, to_html
from mhc_bench.files import write_text

HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='pwned = 1'> && {{ 7 * 7 }} $x_1$ \\input"
"""A text that is markup, script, template and LaTeX at once."""

MILD_HC = ("mild", "hc")


def depth() -> dict[str, Any]:
    """Gains and matrices over four sublayers of two streams; the third gain was not finite."""
    gains = [1.0, 2.5, None, 300.0]
    names = ("forward_gain", "backward_gain", "composite_forward_gain", "composite_backward_gain")
    mixing, product = [[[0.75, 0.25], [-0.5, 1.5]]] * 4, [[9e20, None], [0.0, 1.0]]
    return {"step": 120, **dict.fromkeys(names, gains), "mixing": mixing, "product": product}


def study_with_depth() -> list[Record]:
    """Two protocols; one of HC's runs diverged. Under mild, HC's runs have depth and a hostile note."""
    others = [
        record for record in study_records() if (record.identity.arm, record.identity.variant) != MILD_HC
    ]
    mild = [make_evidence("hc", seed, suite="study", arm="mild", loss=LOSSES["hc"][seed]) for seed in SEEDS]
    return [*others, *(assemble_record(replace(each, depth=depth(), note=HOSTILE)) for each in mild)]


def build_study(folder: Path) -> Path:
    """Write the study's records and its page below `folder`; the page's path."""
    board = load_board(write_all(study_with_depth(), folder / "records"))
    about = {"hc": "H_res x <b>and</b> more", "baseline": "x + F(x)"}
    path = folder / "study" / "leaderboard.html"
    write_text(path, to_html(Contents(board), about, path.parent))
    return path

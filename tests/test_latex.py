"""LaTeX output: nothing in a record can be a command, and a real LaTeX accepts it where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_factory import HOSTILE, study_with_depth

from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.latex import escape, latex_document, latex_table
from mhc_bench.evidence.leaderboard import Contents, to_latex
from mhc_bench.evidence.tables import Table

EVERY_SIGN = " ".join(map(chr, range(32, 127)))


def test_every_special_character_is_escaped() -> None:
    for sign in "&%$#_{}":
        assert escape(f"a{sign}b") == f"a\\{sign}b"
    assert escape("\\input") == r"\textbackslash{}input"
    assert escape("a^b~c") == r"a\textasciicircum{}b\textasciitilde{}c"


def test_signs_of_numbers_are_minus_signs_and_hyphens_stay() -> None:
    assert escape("(-0.5, +1)") == r"(\(-\)0.5, +1)"
    assert escape("1.2 ± 0.3") == r"1.2 \(\pm\) 0.3"
    assert escape("hc-pre-post") == "hc-pre-post" and escape("1e-3") == "1e-3"


def test_what_latex_cannot_print_becomes_a_question_mark() -> None:
    assert escape("na\u00efve\n\ttext") == "na?ve text"


def test_a_table_has_a_rule_above_between_and_below() -> None:
    text = latex_table(Table("T", ("Variant", "Mean"), (("hc", "-1.5"),), "Why."), "tab:t")
    body = text[text.index(r"\toprule") : text.index(r"\end{tabular}")]
    expected = [r"\toprule", r"Variant & Mean \\", r"\midrule", r"hc & \(-\)1.5 \\", r"\bottomrule"]
    assert body.split("\n")[:5] == expected
    assert r"\begin{tabular}{lr}" in text and r"\caption{T. Why.}" in text


def test_labels_differ_between_protocols() -> None:
    text = to_latex(Contents(collate(study_with_depth())))
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels)) > 10


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive-latex-recommended)")
def test_latex_accepts_it(tmp_path: Path) -> None:
    hostile = Table(HOSTILE, ("Variant", HOSTILE), ((EVERY_SIGN, HOSTILE), ("[1]", "*")), HOSTILE)
    content = to_latex(Contents(collate(study_with_depth()))) + latex_document([("", [hostile])])
    (tmp_path / "tables.tex").write_text(content, encoding="utf-8")
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{graphicx}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}\input{{tables}}\end{{document}}"
    (tmp_path / "page.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout

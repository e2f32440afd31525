"""The static page: whole, escaped, linked to its records, closed to the network, and legible."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import pytest
from evidence_factory import make_record, suite_records, write_all
from page_factory import HOSTILE, build_study

from mhc_bench.errors import UsageError
from mhc_bench.evidence import build_leaderboard
from mhc_bench.evidence.collate import collate
from mhc_bench.evidence.leaderboard import Contents, to_html
from mhc_bench.evidence.page.cells import Links, number, sheet, tone
from mhc_bench.evidence.page.charts import entry_text
from mhc_bench.evidence.page.svg import Scale, spanning, tick_text
from mhc_bench.evidence.page.variants import looks
from mhc_bench.evidence.tables import Table
from mhc_bench.suite.formulas import formulas

TEMPLATES = files("mhc_bench.evidence") / "templates"
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """What a browser would find: elements, ids, links, and whether every element is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(built: Path) -> Page:
    return Page(built.read_text(encoding="utf-8"))


def test_every_element_is_closed_in_its_order_and_no_id_stands_twice(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_every_link_leads_to_an_element_of_the_page_or_to_a_file(page: Page, built: Path) -> None:
    links = page.values("href")
    inside = {unquote(link[1:]) for link in links if link.startswith("#")}
    assert inside <= set(page.values("id"))
    outside = {link for link in links if not link.startswith(("#", "data:"))}
    assert len(outside) == 18  # two protocols, three variants, three seeds
    for link in outside:
        assert (built.parent / unquote(link)).resolve().is_file()


def test_every_number_of_a_variant_links_to_its_records(page: Page, built: Path) -> None:
    rows = re.findall(r'<tr data-variant="(hc|mhc|baseline)".*?</tr>', built.read_text(), flags=re.S)
    assert len(rows) > 50
    for row in re.finditer(r'<tr data-variant="(hc|mhc|baseline)".*?</tr>', built.read_text(), flags=re.S):
        for cell in re.findall(r'<td class="number"[^>]*data-key.*?</td>', row[0]):
            assert "<a href=" in cell, cell


def test_texts_of_records_are_text_and_nothing_else(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and "img" not in tags and "b" not in tags
    assert HOSTILE in "".join(page.text)
    assert "H_res x <b>and</b> more" in page.text
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else(built: Path) -> None:
    text = built.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", text, flags=re.S)
        assert inline is not None
        digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}';" in allowed
    assert allowed.startswith("default-src 'none'")
    assert "style=" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.S)


def test_every_drawing_says_what_it_shows(page: Page) -> None:
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    said = [attributes for attributes in drawings if attributes.get("role") == "img"]
    assert len(said) > 20
    assert all(len(attributes["aria-label"] or "") > 40 for attributes in said)
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in drawings)
    labels = [attributes["aria-label"] or "" for attributes in said]
    assert any("hc at 120:" in label and "diverged at 70" in label for label in labels)
    assert any("world_bbh" in label and "chance 31.5" in label for label in labels)
    assert any("2 by 2 matrices" in label and "Product: 9e20 unknown; 0.00 1.00" in label for label in labels)


def test_what_old_records_lack_is_said(built: Path) -> None:
    text = built.read_text(encoding="utf-8")
    # three plots over depth, for all but the one variant that has them
    assert text.count('<p class="absent">not recorded</p>') == 3 * 5


def test_the_same_records_give_the_same_page(built: Path, tmp_path: Path) -> None:
    assert build_study(tmp_path).read_bytes() == built.read_bytes()


def test_two_protocols_under_one_name_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    records = [*suite_records(), make_record("hc", 0, suite="quick", loss=1.0)]
    other = records[-1].model_copy(
        update={"identity": records[-1].identity.model_copy(update={"protocol_id": "0123456789"})}
    )
    write_all([*records[:-1], other], tmp_path / "records")
    with pytest.raises(UsageError, match="cannot mix protocol ids"):
        build_leaderboard(tmp_path / "records", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_of_two_protocols_never_share_a_body_that_sorts(built: Path) -> None:
    text = built.read_text(encoding="utf-8")
    for name in ("mild", "hot"):
        section = re.search(
            rf'<section id="arm~{name}" data-arm="{name}">(.*?)</section>\n<section id=', text, re.S
        )
        assert section is not None
        ours = [link for link in re.findall(r'href="([^"]*)"', section[1]) if link.startswith("#variant")]
        assert ours and all(link.startswith(f"#variant~{name}~") for link in ours)


def test_a_record_that_was_read_from_no_file_has_no_link() -> None:
    text = to_html(Contents(collate(suite_records())), {}, Path())
    assert ".json" not in text and "seed 0 (complete" in text


def test_measures_head_their_rows_and_sort_apart() -> None:
    table = Table(
        "T",
        ("Measure", "Variant", "Mean", "Verdict"),
        (
            ("a", "hc", "1.5 ± 0.1", "better"),
            ("a", "mhc", "-", "not shown (why)"),
            ("b", "hc", "x 3", "worse"),
        ),
    )
    found = sheet(table, Links({"hc": "#hc", "mhc": "#mhc"}, {}))
    assert [group.heading for group in found.groups] == ["a", "b"]
    assert [heading for heading, _ in found.columns] == ["Variant", "Mean", "Verdict"]
    first, second = found.groups[0].lines
    assert [cell.link for cell in first.cells] == ["#hc", "#hc", "#hc"]
    assert [cell.key for cell in first.cells] == [None, 1.5, None]
    assert (first.tone, second.tone, second.cells[1].key) == ("good", "neutral", None)


def test_numbers_of_no_variant_lead_to_all_runs_and_those_of_the_paper_or_a_simulation_nowhere() -> None:
    links = Links({}, {}, "#runs")
    claims = Table("C", ("Claim", "Paper", "Ours", "Verdict"), (("t", "-0.021", "+0.1 (0, 1)", "confirmed"),))
    (line,) = sheet(claims, links).groups[0].lines
    assert [cell.link for cell in line.cells] == ["", "", "#runs", "#runs"]
    simulated = Table("S", ("Case", "Coverage"), (("a", "94.8 %"),))
    assert [cell.link for cell in sheet(simulated, links).groups[0].lines[0].cells] == ["", ""]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.2663 ± 0.0829", 1.2663),
        ("(-0.44, +0.13)", -0.44),
        ("300,000", 300_000),
        ("7.5e+20 to 8e+21", 7.5e20),
        ("x 19.2 (x 13.9, x 26.5)", 19.2),
        ("not measured", None),
        ("-", None),
        ("no run of hc", None),
    ],
)
def test_a_cell_sorts_by_the_number_that_it_starts_with(text: str, value: float | None) -> None:
    assert number(text) == value


def test_verdicts_have_a_colour_by_their_first_word() -> None:
    said = [
        "better",
        "worse",
        "confirmed",
        "contradicted",
        "not shown (41 seeds)",
        "hc diverged in 1 of 3 seeds",
    ]
    assert [tone(each) for each in said] == ["good", "bad", "good", "bad", "neutral", "neutral"]


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """By WCAG 2."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(scheme: int) -> None:
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    colours = dict(
        re.findall(
            r"--([a-z0-9]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, flags=re.S)[scheme]
        )
    )
    for ground in ("page", "raised"):
        for name in ("text", "soft", "link", "good", "bad"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in (f"c{index}" for index in range(8)):
        assert contrast(colours[name], colours["page"]) >= 3, name


def test_scales_keep_order_and_ticks_are_round() -> None:
    up = spanning([0.0, 10.0], 200, 20)
    assert up(0.0) > up(5.0) > up(10.0)
    assert [tick_text(value) for value in up.ticks] == ["0", "2.5", "5", "7.5", "10"]
    log = Scale(1.0, 1e20, 200, 20, log=True)
    assert log(1e10) == pytest.approx(110)
    assert 2 <= len(log.ticks) <= 7
    assert tick_text(1e20) == "1e20" and tick_text(1200) == "1,200" and tick_text(1e-4) == "1e-4"
    assert spanning([3.0, 3.0], 0, 1).low < 3 < spanning([3.0, 3.0], 0, 1).high


def test_entries_of_matrices_are_short() -> None:
    assert [entry_text(value) for value in (0.25, -12.3, 9e20, 1234.0)] == ["0.25", "-12.30", "9e20", "1e3"]


def test_colours_of_the_known_variants_never_change() -> None:
    assert looks(("baseline", "attnres", "mhc")) == {"baseline": 0, "hc": 1, "mhc": 2, "attnres": 3}


def test_the_formulas_are_the_docstrings_of_the_registered_connections() -> None:
    from mhc_bench.residual import resolve, variant_names

    found = formulas()
    assert set(found) == set(variant_names())
    for name, text in found.items():
        assert text and " ".join(text.split()) == " ".join((resolve(name).__doc__ or "").split())

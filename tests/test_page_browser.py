"""The page in a real browser: sorting, filters, keyboard, links, widths, and a console without errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from page_factory import build_study

selenium = pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESK = (360, 740), (1280, 900)
Driver = Any


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_study(tmp_path_factory.mktemp("study")).as_uri()


@pytest.fixture
def page(driver: Driver, url: str) -> Driver:
    """The page, freshly loaded at the width of a desk, in the light scheme."""
    emulate(driver, *DESK)
    driver.get("about:blank")
    driver.get(url)
    return driver


def emulate(driver: Driver, width: int, height: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def one(driver: Driver, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def choose(driver: Driver, field: str, value: str) -> None:
    one(driver, f'#filter-{field} option[value="{value}"]').click()


def column(driver: Driver, heading: str) -> list[list[str]]:
    """A column of the first table of the mild protocol, body by body, in the order seen."""
    script = """
        const table = document.querySelector("[id='arm~mild'] table");
        const place = Array.from(table.tHead.rows[0].cells).findIndex((c) => c.textContent === arguments[0]);
        return Array.from(table.tBodies, (body) => Array.from(body.querySelectorAll("tr:not(.group)"),
            (row) => row.cells[place].textContent.trim()));
    """
    found: list[list[str]] = driver.execute_script(script, heading)
    return found


def heading(driver: Driver, text: str) -> Any:
    xpath = f"//section[@id='arm~mild']//table[1]/thead//button[text()='{text}']"
    return driver.find_elements("xpath", xpath)[0]


def test_it_loads_without_an_error_and_asks_the_network_for_nothing(page: Driver) -> None:
    assert page.title == "study: residual connections compared"
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert page.execute_script("return window.pwned") is None


def test_what_the_policy_forbids_does_not_run(page: Driver) -> None:
    page.execute_script("""
        const added = document.createElement("script");
        added.textContent = "window.pwned = 1";
        document.body.append(added);
    """)
    assert page.execute_script("return window.pwned") is None
    assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


def test_a_column_sorts_up_then_down_then_as_it_was_and_measures_stay_apart(page: Driver) -> None:
    variants = column(page, "Variant")
    assert variants[0] == ["baseline", "hc", "mhc"]
    button = heading(page, "Mean ± sd")
    cell = button.find_element("xpath", "..")
    assert cell.get_attribute("aria-sort") == "none"
    seen = []
    for state in ("ascending", "descending", "none"):
        button.click()
        assert cell.get_attribute("aria-sort") == state
        seen.append([float(text.split()[0]) for text in column(page, "Mean ± sd")[0]])
    assert seen[0] == sorted(seen[0]) == list(reversed(seen[1])) != seen[2]
    assert column(page, "Variant") == variants
    button.click()
    firsts = page.find_elements("css selector", "[id='arm~mild'] table[data-sortable] tbody tr:first-child")
    assert [each.get_attribute("class") for each in firsts[:2]] == ["group", "group"]


def test_what_is_no_number_stays_last_both_ways(page: Driver) -> None:
    button = heading(page, "Difference")
    for _ in range(2):
        button.click()
        assert column(page, "Difference")[0][-1] == "-"


def test_only_one_column_says_that_it_is_sorted(page: Driver) -> None:
    heading(page, "Variant").click()
    heading(page, "n").click()
    sorted_ones = page.find_elements("css selector", "[aria-sort=ascending]")
    assert [each.text for each in sorted_ones] == ["n"]


def test_the_protocol_filter_leaves_one_protocol(page: Driver) -> None:
    choose(page, "arm", "hot")
    assert not one(page, "[id='arm~mild']").is_displayed()
    assert one(page, "[id='arm~hot']").is_displayed()
    assert not one(page, "[id='variant~mild~hc']").is_displayed()


def test_the_variant_filter_keeps_the_baseline_beside_it(page: Driver) -> None:
    choose(page, "variant", "mhc")
    script = """
        const rows = Array.from(document.querySelectorAll("tr[data-variant]"));
        return Array.from(new Set(rows.filter((r) => r.offsetParent).map((r) => r.dataset.variant))).sort();
    """
    assert page.execute_script(script) == ["baseline", "mhc"]
    assert not one(page, "[data-variant-section=hc]").is_displayed()


def test_the_verdict_filter_leaves_rows_of_that_verdict_and_says_how_many(page: Driver) -> None:
    before = one(page, "#shown").text
    choose(page, "tone", "good")
    script = """
        const rows = Array.from(document.querySelectorAll("tr[data-tone]"));
        return Array.from(new Set(rows.filter((r) => r.offsetParent).map((r) => r.dataset.tone)));
    """
    assert page.execute_script(script) == ["good"]
    few, many = (int(part) for part in one(page, "#shown").text.removesuffix(" rows shown").split(" of "))
    assert 0 < few < many and before == f"{many} of {many} rows shown"
    one(page, "#filters button[type=reset]").click()
    assert one(page, "#shown").text == before


def test_a_link_to_what_is_filtered_away_shows_it(page: Driver) -> None:
    choose(page, "arm", "hot")
    page.execute_script("location.hash = '#variant~mild~hc'")
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert one(page, "[id='variant~mild~hc']").is_displayed()


def test_the_keyboard_alone_sorts_and_filters(page: Driver) -> None:
    from selenium.webdriver.common.keys import Keys

    one(page, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the tables"
    heading(page, "Difference").send_keys(Keys.ENTER)
    assert heading(page, "Difference").find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    one(page, "#filter-arm").send_keys("hot")
    assert not one(page, "[id='arm~mild']").is_displayed()


def test_focus_can_be_seen(page: Driver) -> None:
    from selenium.webdriver.common.keys import Keys

    one(page, "body").send_keys(Keys.TAB, Keys.TAB)
    style = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.execute_script(style) == "solid"


def test_a_records_link_leads_to_its_json(page: Driver) -> None:
    link = one(page, "[id='variant~mild~mhc'] a[href$='seed1.json']")
    target = link.get_attribute("href")
    link.click()
    assert page.current_url == target
    assert '"schema_version"' in page.page_source


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_the_screen(page: Driver, width: int) -> None:
    emulate(page, width, PHONE[1])
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width


def test_the_dark_scheme_is_dark(page: Driver) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(ground)
    emulate(page, *DESK, scheme="dark")
    assert (light, page.execute_script(ground)) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")


def test_drawings_have_no_part_outside_their_frame(page: Driver) -> None:
    script = """
        const wide = [];
        for (const svg of document.querySelectorAll("svg[role=img]")) {
            const frame = svg.getBoundingClientRect();
            for (const part of svg.querySelectorAll("path, rect, line")) {
                const box = part.getBoundingClientRect();
                if (box.left < frame.left - 3 || box.right > frame.right + 3 || box.top < frame.top - 3 ||
                    box.bottom > frame.bottom + 3) wide.push(svg.getAttribute("aria-label").slice(0, 60));
            }
        }
        return wide;
    """
    assert page.execute_script(script) == []

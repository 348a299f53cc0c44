"""The built pages in a real browser, opened from disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

from pictures.browser import chromium, open_browser  # noqa: E402

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not chromium(), reason="Chromium is not installed; continuous integration installs it"),
]

CUT_TABLES = """
() => [...document.querySelectorAll("article table")].flatMap(table => {
    const column = document.querySelector("article").getBoundingClientRect();
    const box = table.getBoundingClientRect();
    const cells = [...table.querySelectorAll("td, th")];
    const spilled = cells.filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.textContent);
    const wide = box.right > column.right + 1 || table.scrollWidth > column.width + 1;
    return wide || spilled.length ? [[Math.round(box.width), Math.round(column.width), spilled]] : [];
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if path.name != "404.html")


def test_no_table_is_cut_at_1280_pixels(site: Path, page: Page) -> None:
    cut = {}
    for path in pages(site):
        page.goto(path.as_uri(), wait_until="load")
        if tables := page.evaluate(CUT_TABLES):
            cut[str(path.relative_to(site))] = tables
    assert cut == {}


def test_a_table_that_does_not_wrap_is_noticed(site: Path, page: Page) -> None:
    page.goto((site / "glossary.html").as_uri(), wait_until="load")
    page.evaluate(
        """() => document.querySelector("article").insertAdjacentHTML(
            "beforeend", `<table><tr><td style="white-space: nowrap">${"word ".repeat(500)}</td></tr></table>`)"""
    )
    assert page.evaluate(CUT_TABLES)


def test_no_page_loads_anything_from_another_host(site: Path, page: Page) -> None:
    requested: set[str] = set()
    page.on("request", lambda request: requested.add(request.url))
    for path in pages(site):
        page.goto(path.as_uri(), wait_until="load")
    assert {url for url in requested if not url.startswith(("file:", "data:", "blob:"))} == set()


def test_code_is_highlighted_without_a_script(site: Path, page: Page) -> None:
    page.goto((site / "guides" / "operator.html").as_uri(), wait_until="load")
    assert page.locator("div.highlight span.kn").count() > 0
    color = "element => getComputedStyle(element).color"
    keyword = page.locator("div.highlight span.kn").first.evaluate(color)
    assert keyword != page.locator("div.highlight code").first.evaluate(color)


def test_the_search_works_from_disk(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri(), wait_until="load")
    page.locator("input.md-search__input").click()
    page.keyboard.type("preemption")
    result = page.locator(".md-search-result__item a").first
    result.wait_for(timeout=60_000)
    assert result.get_attribute("href")


def test_the_reader_chooses_light_or_dark(site: Path, page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto((site / "index.html").as_uri(), wait_until="load")
    assert page.locator("body").get_attribute("data-md-color-scheme") == "slate"
    page.emulate_media(color_scheme="light")
    page.reload()
    assert page.locator("body").get_attribute("data-md-color-scheme") == "default"

"""The report's page in Chromium: a column sorts, nothing is fetched, a phone does not scroll sideways."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unlikeness.bench.report import write


def test_a_column_sorts_and_nothing_is_fetched(made: Path, tmp_path: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make dev")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium: run `make browser`")
    folder = tmp_path / "out"
    shutil.copytree(made, folder)
    write(folder)
    with sync.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 800})
        fetched: list[str] = []
        faults: list[str] = []
        page.on("request", lambda one: fetched.append(one.url))
        page.on("pageerror", lambda one: faults.append(str(one)))
        page.goto((folder / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        table = page.locator("table.sortable").last
        shown = [float(text.split()[0]) for text in table.locator("td:nth-child(3)").all_inner_texts()]
        assert shown == sorted(shown, reverse=True)
        for _ in range(2):  # first the highest, then the lowest
            table.locator("th:nth-child(3) button").press("Enter")
        turned = [float(text.split()[0]) for text in table.locator("td:nth-child(3)").all_inner_texts()]
        assert turned == sorted(shown)
        assert table.locator("th:nth-child(3)").get_attribute("aria-sort") == "ascending"
        browser.close()
    assert not faults
    assert all(url.startswith(("file:", "data:")) for url in fetched)

"""Headless Chromium: the machine's own, found by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

__all__ = ["chromium", "open_browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Return the path of the machine's Chromium, "" when it has none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), "")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run Chromium while the block lasts. Without a sandbox of its own, because root and containers allow none."""
    if not (path := chromium()):
        raise SystemExit("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()

"""Headless Chromium for the tests of pages: one browser a session, a fresh page for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """A page in the browser, with what went wrong in it: errors of scripts, refused policies, requests."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context})
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.faults.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def draw_all(self) -> None:
        """Draw every section, also those far from the screen, as for printing."""
        self.page.evaluate("dispatchEvent(new Event('beforeprint'))")

    def close(self) -> None:
        self.context.close()


@contextmanager
def opened(browser: Any, path: Path, **context: Any) -> Iterator[Opened]:
    """A page, which is drawn without a fault and without a request; both are checked at the end."""
    found = Opened(browser, path, **context)
    try:
        yield found
        assert found.faults == []
        assert found.requests == [path.as_uri()]
    finally:
        found.close()
